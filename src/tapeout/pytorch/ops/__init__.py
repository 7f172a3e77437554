"""aten operators with kernels for the chip: what torch calls one by one, eagerly or between Inductor's own kernels.

Every kernel is Triton, compiled by the back end like a user's. The operators named here have kernels written by hand;
every other one comes to fallback.py, which has Inductor write one. `register` only names the operators; the modules
with the kernels, and Triton with them, are imported when the first of them is called.
"""

import functools
import importlib
from collections.abc import Callable
from typing import Any

import torch

from tapeout.errors import LaunchError, SanitizerError
from tapeout.pytorch import device_runtime, leaving

# Which function of which module here implements an overload of aten.
IMPLEMENTATIONS = {
    "mm.out": "matmul.mm_out",
    "addmm.out": "matmul.addmm_out",
    "bmm.out": "matmul.bmm_out",
    "baddbmm.out": "matmul.baddbmm_out",
    "add.out": "elementwise.add_out",
    "sub.out": "elementwise.sub_out",
    "rsub.Tensor": "elementwise.rsub",
    "mul.out": "elementwise.mul_out",
    "div.out": "elementwise.div_out",
    "maximum.out": "elementwise.maximum_out",
    "minimum.out": "elementwise.minimum_out",
    "eq.Tensor_out": "elementwise.eq_tensor_out",
    "eq.Scalar_out": "elementwise.eq_scalar_out",
    "ne.Tensor_out": "elementwise.ne_tensor_out",
    "ne.Scalar_out": "elementwise.ne_scalar_out",
    "lt.Tensor_out": "elementwise.lt_tensor_out",
    "lt.Scalar_out": "elementwise.lt_scalar_out",
    "le.Tensor_out": "elementwise.le_tensor_out",
    "le.Scalar_out": "elementwise.le_scalar_out",
    "gt.Tensor_out": "elementwise.gt_tensor_out",
    "gt.Scalar_out": "elementwise.gt_scalar_out",
    "ge.Tensor_out": "elementwise.ge_tensor_out",
    "ge.Scalar_out": "elementwise.ge_scalar_out",
    "bitwise_and.Tensor_out": "elementwise.bitwise_and_out",
    "bitwise_or.Tensor_out": "elementwise.bitwise_or_out",
    "bitwise_xor.Tensor_out": "elementwise.bitwise_xor_out",
    "bitwise_not.out": "elementwise.bitwise_not_out",
    "logical_and.out": "elementwise.logical_and_out",
    "logical_or.out": "elementwise.logical_or_out",
    "logical_not.out": "elementwise.logical_not_out",
    "neg.out": "elementwise.neg_out",
    "abs.out": "elementwise.abs_out",
    "reciprocal.out": "elementwise.reciprocal_out",
    "sqrt.out": "elementwise.sqrt_out",
    "rsqrt.out": "elementwise.rsqrt_out",
    "exp.out": "elementwise.exp_out",
    "log.out": "elementwise.log_out",
    "sin.out": "elementwise.sin_out",
    "cos.out": "elementwise.cos_out",
    "sigmoid.out": "elementwise.sigmoid_out",
    "silu.out": "elementwise.silu_out",
    "tanh.out": "elementwise.tanh_out",
    "pow.Tensor_Scalar_out": "elementwise.pow_out",
    "where.self": "elementwise.where",
    "where.self_out": "elementwise.where_out",
    "isneginf.out": "elementwise.isneginf_out",
    "tril.out": "elementwise.tril_out",
    "triu.out": "elementwise.triu_out",
    "gelu.out": "elementwise.gelu_out",
    "erf.out": "elementwise.erf_out",
    "masked_fill_.Scalar": "elementwise.masked_fill_",
    "masked_fill_.Tensor": "elementwise.masked_fill_",
    "clamp.out": "elementwise.clamp_out",
    "clamp_min.out": "elementwise.clamp_min_out",
    "clamp_max.out": "elementwise.clamp_max_out",
    "clamp.Tensor": "elementwise.clamp_tensor",
    "clamp_.Tensor": "elementwise.clamp_tensor_",
    "clamp.Tensor_out": "elementwise.clamp_tensor",
    "clamp_min.Tensor": "elementwise.clamp_tensor",
    "clamp_min_.Tensor": "elementwise.clamp_tensor_",
    "hardtanh": "elementwise.hardtanh",
    "hardtanh_": "elementwise.hardtanh_",
    "relu": "elementwise.relu",
    "relu_": "elementwise.relu_",
    "fill_.Scalar": "elementwise.fill_scalar_",
    "fill_.Tensor": "elementwise.fill_tensor_",
    "zero_": "elementwise.zero_",
    "_efficientzerotensor": "elementwise.zeros_with_memory",
    "_copy_from": "elementwise.copy_from",
    "cat.out": "elementwise.cat_out",
    "sum.IntList_out": "reduce.sum_out",
    "mean.out": "reduce.mean_out",
    "amax.out": "reduce.amax_out",
    "amin.out": "reduce.amin_out",
    "any.out": "reduce.any_dim_out",
    "all.out": "reduce.all_dim_out",
    "any.all_out": "reduce.any_out",
    "all.all_out": "reduce.all_out",
    "equal": "reduce.equal",
    "max": "reduce.max_all",
    "min": "reduce.min_all",
    "argmax.out": "reduce.argmax_out",
    "max.dim_max": "reduce.max_dim_out",
    "_softmax.out": "reduce.softmax_out",
    "_log_softmax.out": "reduce.log_softmax_out",
    "cumsum.out": "reduce.cumsum_out",
    "native_layer_norm": "reduce.native_layer_norm",
    "native_layer_norm_backward": "norms.native_layer_norm_backward",
    "_fused_rms_norm": "norms.fused_rms_norm",
    "_fused_rms_norm_backward": "norms.fused_rms_norm_backward",
    "native_group_norm": "plane_norms.native_group_norm",
    "native_group_norm_backward": "plane_norms.native_group_norm_backward",
    "native_batch_norm": "plane_norms.native_batch_norm",
    "native_batch_norm_backward": "plane_norms.native_batch_norm_backward",
    "index_select": "index.index_select",
    "embedding": "index.embedding",
    "index.Tensor": "index.index_tensor",
    "index_put_": "index.index_put_",
    "_index_put_impl_": "index.index_put_",
    "index_copy.out": "index.index_copy_out",
    "arange.start_out": "index.arange_out",
    "linspace.out": "index.linspace_out",
    "logspace.out": "index.logspace_out",
    "scalar_tensor": "elementwise.scalar_tensor",
    "kaiser_window": "kaiser_window.kaiser_window",
    "kaiser_window.periodic": "kaiser_window.kaiser_window",
    "kaiser_window.beta": "kaiser_window.kaiser_window",
    "scatter_add.out": "scatter.scatter_add_out",
    "index_add.out": "scatter.index_add_out",
    "scatter_reduce.two_out": "scatter.scatter_reduce_out",
    "index_reduce.out": "scatter.index_reduce_out",
    "isin.Tensor_Tensor_out": "index.isin_out",
    "histc": "index.histc",
    "_scaled_dot_product_fused_attention_overrideable": "attention.fused_attention",
    "_scaled_dot_product_fused_attention_overrideable_backward": "attention.fused_attention_backward",
    "convolution_overrideable": "convolution.convolution",
    "convolution_backward_overrideable": "convolution.convolution_backward",
    "_embedding_bag": "embedding_bag.embedding_bag",
    "_embedding_bag_forward_only": "embedding_bag.embedding_bag_forward_only",
    "_embedding_bag_backward": "embedding_bag.embedding_bag_backward",
    "_embedding_bag_dense_backward": "embedding_bag.embedding_bag_dense_backward",
    "sort.values_stable": "sort.sort_out",
    "topk.values": "sort.topk_out",
    "nonzero": "index.nonzero",
    "nonzero_static": "index.nonzero_static",
    "masked_select": "index.masked_select",
    "kthvalue.values": "order_statistics.kthvalue_out",
    "median": "order_statistics.median",
    "median.dim_values": "order_statistics.median_dim_out",
    "nanmedian": "order_statistics.nanmedian",
    "nanmedian.dim_values": "order_statistics.nanmedian_dim_out",
    "mode": "order_statistics.mode",
    "_unique2": "order_statistics.unique2",
    "unique_consecutive": "order_statistics.unique_consecutive",
    "unique_dim": "order_statistics.unique_dim",
    "bincount": "order_statistics.bincount",
    "repeat_interleave.Tensor": "order_statistics.repeat_interleave",
    "_adaptive_avg_pool2d_backward": "resize.adaptive_average_backward_2d",
    "_adaptive_avg_pool3d": "resize.adaptive_average",
    "_adaptive_avg_pool3d_backward": "resize.adaptive_average_backward_3d",
    "upsample_linear1d_backward.grad_input": "resize.linear_backward_1d",
    "upsample_bilinear2d_backward.grad_input": "resize.linear_backward_2d",
    "upsample_trilinear3d_backward.grad_input": "resize.linear_backward_3d",
    "upsample_bicubic2d_backward.grad_input": "resize.cubic_backward_2d",
    "max_pool3d_with_indices_backward": "resize.max_pool_backward_3d",
    "adaptive_max_pool2d_backward.grad_input": "resize.adaptive_max_backward_2d",
    "adaptive_max_pool3d_backward.grad_input": "resize.adaptive_max_backward_3d",
    "fractional_max_pool2d_backward.grad_input": "resize.fractional_max_backward_2d",
    "fractional_max_pool3d_backward": "resize.fractional_max_backward_3d",
    "upsample_nearest1d_backward.grad_input": "resize.nearest_backward_1d",
    "upsample_nearest2d_backward.grad_input": "resize.nearest_backward_2d",
    "upsample_nearest3d_backward.grad_input": "resize.nearest_backward_3d",
    "_upsample_nearest_exact1d_backward.grad_input": "resize.nearest_exact_backward_1d",
    "_upsample_nearest_exact2d_backward.grad_input": "resize.nearest_exact_backward_2d",
    "_upsample_nearest_exact3d_backward.grad_input": "resize.nearest_exact_backward_3d",
    "addcmul.out": "elementwise.addcmul_out",
    "addcdiv.out": "elementwise.addcdiv_out",
    "lerp.Scalar_out": "elementwise.lerp_out",
    "_fused_adam_": "optimizers.fused_adam",
    "_fused_adam_.tensor_lr": "optimizers.fused_adam",
    "_fused_adamw_": "optimizers.fused_adamw",
    "_fused_adamw_.tensor_lr": "optimizers.fused_adamw",
    "_fused_sgd_": "optimizers.fused_sgd",
    "_fused_sgd_.tensor_lr": "optimizers.fused_sgd",
    "_amp_foreach_non_finite_check_and_unscale_": "optimizers.unscale",
    "_amp_update_scale_": "optimizers.update_scale",
    "record_stream": "streams.record_stream",
    "_nested_tensor_from_mask_left_aligned": "attention.may_be_nested",
    "uniform_": "random.uniform_",
    "normal_": "random.normal_",
    "normal.Tensor_float": "random.normal_tensor_float",
    "normal.float_Tensor": "random.normal_float_tensor",
    "normal.Tensor_Tensor": "random.normal_tensor_tensor",
    "exponential_": "random.exponential_",
    "geometric_": "random.geometric_",
    "log_normal_": "random.log_normal_",
    "cauchy_": "random.cauchy_",
    "rrelu_with_noise": "random.rrelu_with_noise",
    "bernoulli_.float": "random.bernoulli_float_",
    "bernoulli_.Tensor": "random.bernoulli_tensor_",
    "bernoulli.out": "random.bernoulli_out",
    "random_.from": "random.random_from_",
    "random_.to": "random.random_to_",
    "random_": "random.random_",
    "randperm.out": "random.randperm_out",
    "randperm.generator_out": "random.randperm_generator_out",
    "multinomial": "random.multinomial",
    "native_dropout": "random.native_dropout",
}

# The same for sparse tensors, which gradients of embeddings are; the shim keeps their indices and values.
OF_SPARSE = {
    "_coalesce": "sparse.coalesce",
    "_to_dense": "sparse.to_dense",
    "sparse_mask": "sparse.sparse_mask",
    "add.Tensor": "sparse.add",
    "add_.Tensor": "sparse.add_",
    "mul.Tensor": "sparse.mul",
    "mul_.Tensor": "sparse.mul_",
    "div.Tensor": "sparse.div",
    "div_.Tensor": "sparse.div_",
    "neg": "sparse.neg",
    "mm": "sparse.mm",
    "addmm": "sparse.addmm",
}

# What torch would compose of operators, of some that the chip has not or with a rounding after each; Inductor can write
# it whole.
WHOLE = ("cummax", "cummin", "logcumsumexp", "silu_backward", "mish_backward", "addr")

# What torch composes of operators under autograd, and has a kernel of its own here.
WITH_AUTOGRAD = {"cross_entropy_loss": "cross_entropy.cross_entropy_loss"}

# Its parts below autograd, operators of their own so that modes see them.
PARTS = {
    "cross_entropy(Tensor self, Tensor target, int reduction, int ignore_index, float label_smoothing) "
    "-> (Tensor, Tensor, Tensor)": "cross_entropy.forward",
    "cross_entropy_backward(Tensor grad, Tensor self, Tensor target, Tensor exponentials, Tensor number, "
    "int reduction, int ignore_index, float label_smoothing) -> Tensor": "cross_entropy.backward",
}

_libraries: list[torch.library.Library] = []


def register() -> None:
    """Give torch's dispatcher an implementation of each overload and of all others. Called when it wakes.

    The shim checks the arguments of an operator first, then calls what is registered here for PrivateUse3.
    """
    library = torch.library.Library("aten", "IMPL")
    implementations = {overload: _resolve_at_first_call(path, overload) for overload, path in IMPLEMENTATIONS.items()}
    for name in WHOLE:
        operator = getattr(torch.ops.aten, name).default
        implementations[name] = functools.partial(_resolve_at_first_call("fallback.run"), operator)
    for overload, function in implementations.items():
        library.impl(overload, function, "PrivateUse3")
        if overload != "_copy_from":  # whose check is the shim's own
            device_runtime.shim().tapeout_check_first(overload.encode())
    for overload, path in OF_SPARSE.items():
        library.impl(overload, _resolve_at_first_call(path), "SparsePrivateUse1")
    for overload, path in WITH_AUTOGRAD.items():
        for key in ("PrivateUse1", "AutogradPrivateUse1"):
            library.impl(overload, _resolve_at_first_call(path, overload), key)
    parts = torch.library.Library("tapeout", "FRAGMENT")
    for schema, path in PARTS.items():
        parts.define(schema)
        parts.impl(schema.partition("(")[0], _resolve_at_first_call(path), "PrivateUse1")
    every_other = torch.library.Library("_", "IMPL")
    every_other.fallback(_resolve_at_first_call("fallback.run"), "PrivateUse3")
    for key in ("SparsePrivateUse1", "SparseCsrPrivateUse1", "QuantizedPrivateUse1"):
        every_other.fallback(_resolve_at_first_call("fallback.refuse_layout"), key)
    _libraries.extend((library, parts, every_other))


def _resolve_at_first_call(path: str, overload: str | None = None) -> Callable[..., Any]:
    """The function; what stops one of its kernels, such as an index out of range, ends in the error that the host has
    for it. Without an overload the first argument is the operator."""
    function: Callable[..., Any] | None = None

    def call(*args: Any, **kwargs: Any) -> Any:
        nonlocal function
        if function is None:
            module, name = path.split(".")
            function = getattr(importlib.import_module(f"{__name__}.{module}"), name)
        if leaving.begun:
            leaving.park()
        try:
            return function(*args, **kwargs)
        except LaunchError as error:
            if isinstance(error, SanitizerError):
                raise
            from tapeout.pytorch.ops import launch

            given = (_operator(overload), *args) if overload else args
            launch.refuse_as_the_host_does(*given, **kwargs)
            raise

    return call


def _operator(overload: str) -> Any:
    packet, _, name = overload.partition(".")
    return getattr(getattr(torch.ops.aten, packet), name or "default")

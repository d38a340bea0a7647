"""BART's decoder: what each mode sees, decoding, and checkpoints of transformers."""

import pytest
import torch
import torch.nn.functional as F
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    BartConfig,
    BartForConditionalGeneration,
    BartModel,
    BertConfig,
    BertModel,
    PreTrainedTokenizerFast,
)
from transformers.modeling_outputs import BaseModelOutput

from captionstew.checkpoint import load_checkpoint, save_checkpoint
from captionstew.data.tokenizer import load_tokenizer
from captionstew.models.text_decoder import (
    attention_mask,
    build_text_decoder,
    text_decoder_from_dict,
)

SPECIAL = {
    "bos_token": "<s>",
    "pad_token": "<pad>",
    "eos_token": "</s>",
    "unk_token": "<unk>",
    "mask_token": "<mask>",
}
WINDOW = 15  # inputs of the parallel mode


@pytest.fixture
def decoder(tokenizer):
    """With weights moved away from their initial values, so that every token and every frame
    matters.
    """
    torch.manual_seed(0)
    decoder = build_text_decoder("tiny", tokenizer, WINDOW).eval()
    with torch.no_grad():
        for parameter in decoder.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.1)
    return decoder


@pytest.fixture
def memory(decoder):
    """Frames (4, 9, dim) of clips with 9, 5, 7 and 2 frames; padding is loud."""
    lengths = torch.tensor([9, 5, 7, 2])
    frames = torch.randn(4, 9, decoder.dim, generator=torch.Generator().manual_seed(1))
    for row, length in zip(frames, lengths):
        row[length:] = 30.0
    return frames, lengths


@pytest.fixture
def ids(tokenizer, captions):
    return tokenizer.encode(
        [captions[0], captions[5][:20], captions[9], captions[30][:12]], WINDOW + 1
    )


MIXED = torch.tensor([True, False, True, False])


def other_tokens(ids, tokenizer, generator):
    return torch.randint(5, tokenizer.vocab_size, ids.shape, generator=generator)


@torch.no_grad()
def test_parallel_clips_see_no_caption_token_in_a_mixed_batch(decoder, memory, ids, tokenizer):
    """Neither other tokens nor another number of them changes a logit."""
    tokens, lengths = ids
    before = decoder(*memory, tokens, lengths, MIXED)
    changed = tokens.clone()
    changed[MIXED] = other_tokens(tokens, tokenizer, torch.Generator().manual_seed(2))[MIXED]
    after = decoder(*memory, changed, torch.where(MIXED, lengths - 3, lengths), MIXED)
    assert torch.equal(after, before)


@torch.no_grad()
def test_autoregressive_clips_see_no_later_token_in_a_mixed_batch(decoder, memory, ids, tokenizer):
    tokens, lengths = ids
    before = decoder(*memory, tokens, lengths, MIXED)
    for t in range(1, 7):
        changed = tokens.clone()
        changed[:, t:] = other_tokens(tokens, tokenizer, torch.Generator().manual_seed(t))[:, t:]
        after = decoder(*memory, changed, lengths, MIXED)
        # logits[:, i] are those of token i + 1, from the tokens up to i: those before t are the
        # same, no later one is
        assert torch.equal(after[:, :t], before[:, :t]) and torch.equal(after[MIXED], before[MIXED])
        later = (after - before).abs().amax(-1)[1, t : lengths[1] - 1]
        assert len(later) == 7 - t and (later > 1e-3).all()


def test_who_sees_whom():
    """An autoregressive clip of 2 inputs and a parallel one of 3, among 3 positions."""
    mask = attention_mask(torch.tensor([2, 3]), torch.tensor([False, True]), 3)
    assert mask.shape == (2, 1, 3, 3)
    assert mask[0, 0].long().tolist() == [[1, 0, 0], [1, 1, 0], [1, 1, 0]]
    assert mask[1, 0].all()


@torch.no_grad()
def test_one_mixed_forward_equals_one_of_each_mode(decoder, memory, ids):
    tokens, lengths = ids
    mixed = decoder(*memory, tokens, lengths, MIXED)
    autoregressive = decoder(*memory, tokens, lengths)
    parallel = decoder(*memory, tokens, lengths, torch.ones(4, dtype=torch.bool))
    assert torch.allclose(mixed[MIXED], parallel[MIXED], atol=1e-5)
    for row in torch.nonzero(~MIXED).flatten():
        valid = slice(None, lengths[row] - 1)
        assert torch.allclose(mixed[row, valid], autoregressive[row, valid], atol=1e-5)
        assert not torch.allclose(mixed[row, valid], parallel[row, valid], atol=1e-2)


@torch.no_grad()
def test_padding_frames_and_padding_tokens_change_nothing(decoder, memory, ids):
    frames, frame_lengths = memory
    tokens, lengths = ids
    together = decoder(frames, frame_lengths, tokens, lengths, MIXED)
    captions = decoder.generate(frames, frame_lengths, 1, 12)
    for row, (frame_length, length) in enumerate(zip(frame_lengths, lengths)):
        one = slice(row, row + 1)
        own = (frames[one, :frame_length], frame_lengths[one])
        alone = decoder(*own, tokens[one, :length], lengths[one], MIXED[one])
        assert torch.allclose(together[row, : length - 1], alone[0], atol=1e-5)
        caption = decoder.generate(*own, 1, 12)[0]
        assert torch.equal(captions[row, : len(caption)], caption)


def greedy(decoder, memory, lengths, eos_id, bos_id, max_tokens):
    """One clip, one token at a time, without a cache."""
    ids = torch.tensor([[bos_id]])
    while ids.size(1) < max_tokens and ids[0, -1] != eos_id:
        longer = torch.cat([ids, torch.zeros(1, 1, dtype=torch.long)], dim=1)
        logits = decoder(memory, lengths, longer, torch.tensor([longer.size(1)]))
        ids = torch.cat([ids, logits[:, -1:].argmax(-1)], dim=1)
    return ids[0]


@torch.no_grad()
def test_greedy_decoding_equals_token_by_token(decoder, memory, tokenizer):
    frames, lengths = memory
    together = decoder.generate(frames, lengths, 1, 14)
    assert (together[:, 0] == tokenizer.bos_id).all() and together.size(1) <= 14
    assert len({tuple(row.tolist()) for row in together}) > 1
    for row in range(4):
        expected = greedy(
            decoder,
            frames[row : row + 1],
            lengths[row : row + 1],
            tokenizer.eos_id,
            tokenizer.bos_id,
            14,
        )
        assert torch.equal(together[row, : len(expected)], expected)
        assert (together[row, len(expected) :] == tokenizer.pad_id).all()


@torch.no_grad()
def test_beam_search_finds_what_is_at_least_as_probable(decoder, memory, tokenizer):
    """Captions of equal length: a wide beam's has no smaller probability than the greedy one, and
    often a larger.
    """
    frames, lengths = memory
    decoder.bart.lm_head.weight[tokenizer.eos_id] = 0.0  # no early end: all captions have 4 tokens

    def log_probability(ids):
        logits = decoder(frames, lengths, ids, torch.full((4,), ids.size(1)))
        chosen = F.log_softmax(logits, -1).gather(-1, ids[:, 1:, None]).squeeze(-1)
        return chosen.sum(1)

    narrow, wide = decoder.generate(frames, lengths, 1, 4), decoder.generate(frames, lengths, 30, 4)
    gain = log_probability(wide) - log_probability(narrow)
    assert (gain > -1e-4).all() and (gain > 0.01).any()


def test_captions_longer_than_the_parallel_inputs_are_refused(decoder, memory, tokenizer, captions):
    tokens, lengths = tokenizer.encode([captions[0] * 3] * 4, WINDOW + 2)
    with pytest.raises(ValueError, match="a caption of 17 tokens, at most 16 fit"):
        decoder(*memory, tokens, lengths, MIXED)
    with pytest.raises(ValueError, match="captions of 2001 tokens, but the decoder has 1024"):
        build_text_decoder("tiny", tokenizer, 2000)


def test_it_travels_in_a_checkpoint(decoder, memory, ids, tmp_path):
    content = {"config": {"text_decoder": decoder.to_dict()}, "model": decoder.state_dict()}
    save_checkpoint(tmp_path / "a.pt", content)
    content = load_checkpoint(tmp_path / "a.pt")
    restored = text_decoder_from_dict(content["config"]["text_decoder"]).eval()
    restored.load_state_dict(content["model"])
    assert torch.equal(restored(*memory, *ids, MIXED), decoder(*memory, *ids, MIXED))
    assert torch.equal(restored.generate(*memory, 2, 9), decoder.generate(*memory, 2, 9))


def test_bart_base_has_barts_decoder(tokenizer):
    with torch.device("meta"):
        decoder = build_text_decoder("bart-base", tokenizer)
    config = decoder.bart.config
    assert (config.decoder_layers, config.d_model, config.decoder_attention_heads) == (6, 768, 12)
    assert (
        config.decoder_ffn_dim == 3072
        and decoder.vocab_size == tokenizer.vocab_size
        and decoder.dim == 768
    )
    assert decoder.bart.lm_head.weight.shape == (tokenizer.vocab_size, 768)


@pytest.fixture
def bart_tokenizer(tmp_path, captions):
    """A byte-level BPE with BART's special tokens at BART's places."""
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=330, special_tokens=list(SPECIAL.values()), show_progress=False
    )
    backend.train_from_iterator(captions, trainer)
    PreTrainedTokenizerFast(tokenizer_object=backend, **SPECIAL).save_pretrained(tmp_path / "bart")
    return load_tokenizer(tmp_path / "bart")


@pytest.fixture
def bart_config(bart_tokenizer):
    return BartConfig(
        vocab_size=bart_tokenizer.vocab_size,
        d_model=16,
        encoder_layers=1,
        decoder_layers=2,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=24,
        decoder_ffn_dim=24,
        max_position_embeddings=64,
        init_std=0.5,
    )


@torch.no_grad()
@pytest.mark.parametrize("saved", [BartModel, BartForConditionalGeneration])
def test_a_bart_checkpoint_gives_barts_logits(
    saved, bart_config, bart_tokenizer, captions, tmp_path
):
    """Those of BART with the frames as its encoder's output, given </s> <s> ... as in its
    pretraining.
    """
    torch.manual_seed(0)
    saved(bart_config).save_pretrained(tmp_path / "bart")
    bart = BartForConditionalGeneration.from_pretrained(tmp_path / "bart").eval()
    decoder = build_text_decoder(str(tmp_path / "bart"), bart_tokenizer, 20).eval()
    frames, lengths = torch.randn(3, 6, 16), torch.tensor([6, 4, 1])
    mask = (torch.arange(6) < lengths[:, None]).long()
    ids, id_lengths = bart_tokenizer.encode([captions[0], captions[20], "a dog"], 21)
    inputs = torch.cat([torch.full((3, 1), bart_tokenizer.eos_id), ids[:, :-1]], dim=1)
    audio = BaseModelOutput(last_hidden_state=frames)
    expected = bart(encoder_outputs=audio, attention_mask=mask, decoder_input_ids=inputs).logits[
        :, 1:
    ]
    logits = decoder(frames, lengths, ids, id_lengths)
    for row, length in enumerate(id_lengths):
        assert torch.allclose(logits[row, : length - 1], expected[row, : length - 1], atol=1e-4)
    start = torch.tensor([[bart_tokenizer.eos_id, bart_tokenizer.bos_id]]).expand(3, -1)
    generated = bart.generate(
        encoder_outputs=audio, attention_mask=mask, decoder_input_ids=start, max_length=13,
        num_beams=3, do_sample=False, forced_eos_token_id=None,
    )  # fmt: skip
    assert torch.equal(decoder.generate(frames, lengths, 3, 12), generated[:, 1:])


def test_checkpoints_that_do_not_fit_are_refused(bart_config, bart_tokenizer, tokenizer, tmp_path):
    BartModel(bart_config).save_pretrained(tmp_path / "other")
    with pytest.raises(ValueError, match="a text checkpoint needs its own tokenizer"):
        build_text_decoder(str(tmp_path / "other"), tokenizer)
    small = BertConfig(
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=1,
        intermediate_size=8,
        vocab_size=50,
    )
    BertModel(small).save_pretrained(tmp_path / "bert")
    with pytest.raises(ValueError, match="nor a BART checkpoint .*a bert model, not BART"):
        build_text_decoder(str(tmp_path / "bert"), tokenizer)
    with pytest.raises(ValueError, match="neither tiny, bart-base nor a BART checkpoint"):
        build_text_decoder(str(tmp_path / "absent"), tokenizer)
    (tmp_path / "other" / "model.safetensors").write_bytes(b"<html>404</html>")
    with pytest.raises(ValueError, match="name another with --text-decoder"):
        build_text_decoder(str(tmp_path / "other"), tokenizer)

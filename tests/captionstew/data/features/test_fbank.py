import numpy as np
import pytest
import torch

from captionstew.data.features.fbank import PADDING_VALUE, Fbank, FbankConfig, pad_features


@pytest.fixture(scope="module")
def fbank():
    return Fbank(FbankConfig())


def clip(num_samples, seed=0):
    generator = torch.Generator().manual_seed(seed)
    time = torch.arange(num_samples) / 16000
    tone = 0.3 * torch.sin(2 * torch.pi * (200 + 900 * time) * time)
    return tone + 0.02 * torch.randn(num_samples, generator=generator)


def test_agrees_with_kaldi_native_fbank(fbank):
    knf = pytest.importorskip(
        "kaldi_native_fbank", reason="kaldi-native-fbank, the independent check, is not installed"
    )
    config = fbank.config
    options = knf.FbankOptions()
    options.frame_opts.dither = config.dither
    options.frame_opts.snip_edges = config.snip_edges
    options.frame_opts.samp_freq = config.sampling_rate
    options.mel_opts.num_bins = config.num_mel_bins
    options.mel_opts.low_freq = config.low
    options.mel_opts.high_freq = config.high
    for samples in (clip(16000), clip(40123, seed=1), torch.zeros(4000)):
        online = knf.OnlineFbank(options)
        online.accept_waveform(config.sampling_rate, samples.tolist())
        online.input_finished()
        reference = np.stack([online.get_frame(i) for i in range(online.num_frames_ready)])
        features = fbank.extract(samples).numpy()
        assert features.shape == reference.shape
        assert np.abs(features - reference).max() < 2e-3


def test_silence_gives_the_padding_value(fbank):
    features = fbank.extract(torch.zeros(4000))
    assert features.shape == (25, 80)
    torch.testing.assert_close(features, torch.full((25, 80), PADDING_VALUE), atol=1e-6, rtol=0)


@pytest.mark.parametrize("num_samples", [4000, 16000, 16079, 16080, 16081, 123457])
def test_number_of_frames_is_known_beforehand(fbank, num_samples):
    assert len(fbank.extract(torch.zeros(num_samples))) == fbank.config.num_frames(num_samples)


def test_a_clips_features_do_not_depend_on_its_batch(fbank):
    clips = [clip(16000), clip(5000, seed=1), clip(33333, seed=2)]
    features, lengths = fbank.extract_batch(clips)
    assert (
        features.shape == (3, 208, 80)
        and lengths.tolist() == [100, 31, 208]
        and lengths.dtype == torch.int64
    )
    for row, length, samples in zip(features, lengths, clips):
        assert torch.equal(row[:length], fbank.extract(samples))
        assert torch.equal(row[length:], torch.full_like(row[length:], PADDING_VALUE))


def test_features_can_be_trained_on(fbank):
    features, _ = fbank.extract_batch([clip(16000)])
    weight = torch.ones(80, requires_grad=True)
    (features @ weight).sum().backward()
    assert weight.grad is not None


def test_padding_has_one_constant():
    features, lengths = pad_features([torch.zeros(2, 3), torch.ones(4, 3)])
    assert (
        lengths.tolist() == [2, 4]
        and (features[0, 2:] == PADDING_VALUE).all()
        and (features[1] == 1).all()
    )


def test_configuration_travels_as_a_dict():
    config = FbankConfig(num_mel_bins=64)
    assert FbankConfig.from_dict(config.to_dict()) == config
    assert config.hash() != FbankConfig().hash()
    with pytest.raises(ValueError, match="num_mels"):
        FbankConfig.from_dict({"num_mels": 80})
    with pytest.raises(ValueError, match="kaldi_feat"):
        FbankConfig(backend="kaldi_feat")


def test_wrong_shape_is_an_error(fbank):
    with pytest.raises(ValueError, match=r"\(1, 16000\)"):
        fbank.extract(torch.zeros(1, 16000))


def test_kaldifeat_is_never_chosen_silently():
    try:
        import kaldifeat  # noqa: F401
    except (ImportError, OSError):
        with pytest.raises(ImportError, match="--fbank-backend lhotse"):
            Fbank(FbankConfig(backend="kaldifeat"))
    else:
        pytest.skip("kaldifeat is installed: test_kaldifeat_agrees checks it")


def test_kaldifeat_agrees(fbank):
    pytest.importorskip("kaldifeat", reason="kaldifeat is not installed")
    other = Fbank(FbankConfig(backend="kaldifeat"))
    torch.testing.assert_close(
        other.extract(clip(16000)), fbank.extract(clip(16000)), atol=2e-3, rtol=0
    )


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_gpu_features_agree_with_cpu(fbank):
    gpu = Fbank(FbankConfig(), device="cuda")
    torch.testing.assert_close(
        gpu.extract(clip(16000)).cpu(), fbank.extract(clip(16000)), atol=2e-3, rtol=0
    )

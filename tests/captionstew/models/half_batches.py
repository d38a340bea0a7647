"""Loss and gradients of one batch, by as many processes as asked for: python half_batches.py FOLDER
WORLD_SIZE PORT

Reads FOLDER/batch.pt, writes FOLDER/<world size>-<rank>.pt. Rank 0 has the first 5 clips, rank 1
the other 3.
"""

import sys
from pathlib import Path

import torch

from captionstew.data.tokenizer import tokenizer_from_dict
from captionstew.models.contrastive import build_contrastive, caption_keys, info_nce
from captionstew.training.launch import launch
from captionstew.training.state import share_gradients
from zipformer.randomness import Randomness, share_randomness
from zipformer.schedules import zero_rates


class NoRandomness(Randomness):
    """No Balancer and no Whiten acts; nothing is dropped."""

    def decide(self, probability):
        return False

    def uniform(self, shape, device):
        return torch.ones(shape)


def work(rank, folder):
    content = torch.load(folder / "batch.pt")
    batch, config, tokenizer = (
        content["batch"],
        content["config"],
        tokenizer_from_dict(content["config"]["tokenizer"]),
    )
    torch.manual_seed(0)
    model = build_contrastive(config, tokenizer).train()
    model.text_tower.eval()  # its dropout is the only other randomness
    zero_rates(model)
    share_randomness(model.encoder, NoRandomness())
    rows = (
        slice(None) if rank.world_size == 1 else slice(0, 5) if rank.rank == 0 else slice(5, None)
    )
    ids, id_lengths = tokenizer.encode(batch["captions"], 32)
    wrapped = share_gradients(model, rank)
    audio, text, scale = wrapped(
        batch["features"][rows], batch["feature_lengths"][rows], ids[rows], id_lengths[rows]
    )
    keys = caption_keys(batch["captions"][rows], rank.device) if content["ignore"] else None
    loss = 0.5 * sum(info_nce(audio, text, scale, keys))
    (loss * rank.world_size).backward()  # as the training loop does
    gradients = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    torch.save(
        {"loss": loss.item(), "gradients": gradients}, folder / f"{rank.world_size}-{rank.rank}.pt"
    )


if __name__ == "__main__":
    torch.set_num_threads(1)
    launch(work, int(sys.argv[2]), int(sys.argv[3]), "cpu", Path(sys.argv[1]))

"""General-purpose audio representations learned from language.

encoder = captionstew.load_encoder("exp/contrastive/pretrained.pt")  # frozen: frames, embeddings
captioner = captionstew.load_captioner("exp/captioning/pretrained.pt")
retriever = captionstew.load_retriever("exp/contrastive/pretrained.pt")  # search, zero-shot labels
"""

__version__ = "0.2.0"  # the one place; pyproject.toml reads it


def load_encoder(path_or_name, device="cpu"):
    """A frozen audio encoder; the names are listed in captionstew.models.encoders.load."""
    from captionstew.models.encoders.load import load_encoder as load

    return load(path_or_name, device)


def load_captioner(checkpoint, device="cpu"):
    """A captioning model; see captionstew.inference.captioner."""
    from captionstew.inference.captioner import load_captioner as load

    return load(checkpoint, device)


def load_retriever(checkpoint, device="cpu"):
    """A two-tower model; see captionstew.inference.retriever."""
    from captionstew.inference.retriever import load_retriever as load

    return load(checkpoint, device)

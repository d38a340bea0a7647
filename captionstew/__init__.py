"""General-purpose audio representations learned from language."""

__version__ = "0.1.0"


def load_encoder(path_or_name, device="cpu"):
    """A frozen audio encoder; see captionstew.models.frozen."""
    from captionstew.models.frozen import load_encoder as load

    return load(path_or_name, device)

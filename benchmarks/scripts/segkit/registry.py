class Registry:
    """A registry that maps strings to classes."""

    def __init__(self, name):
        self.name = name
        self._items = {}

    def register_module(self, cls):
        self._items[cls.__name__] = cls
        return cls

    def build(self, cfg, **kw):
        cfg = dict(cfg)
        kind = cfg.pop("type")
        if kind not in self._items:
            raise KeyError(f"{kind} is not in the {self.name} registry")
        return self._items[kind](**cfg, **kw)


MODELS, DATASETS, OPTIMIZERS = Registry("model"), Registry("dataset"), Registry("optimizer")

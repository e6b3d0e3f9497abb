"""Changes to the two training files: thirty that take more memory, and thirty-two that take no more."""

from dataclasses import dataclass

_ANYWHERE = ("the whole network", "encoder", "decoder", "blocks", "activation")


@dataclass(frozen=True)
class Change:
    """Texts of a training file and what stands in their place; `names` are empty for a refactoring."""

    what: str
    file: str
    edits: tuple[tuple[str, str], ...]
    names: tuple[str, ...] = ()

    def applied(self, source: str) -> str:
        """The file with the change made; each text must be there."""
        for old, new in self.edits:
            if old not in source:
                raise ValueError(f"'{self.what}': no {old!r} in {self.file}")
            source = source.replace(old, new)
        return source


def _segmenter(what: str, *edits: tuple[str, str], names: tuple[str, ...] = ()) -> Change:
    return Change(what, "segmenter", edits, names)


def _language_model(what: str, *edits: tuple[str, str], names: tuple[str, ...] = ()) -> Change:
    return Change(what, "language_model", edits, names)


_SECOND = "return functional.relu(self.second(x), inplace=True)"
_CROSS = "return functional.cross_entropy(outputs, targets)"
_WORDS_CROSS = "return functional.cross_entropy(outputs.flatten(0, 1), targets.flatten())"

REGRESSIONS = (
    _segmenter("factor after each block", (_SECOND, "return functional.relu(self.second(x)) * 1.5"), names=_ANYWHERE),
    _segmenter(
        "dropout in each block",
        (_SECOND, "return functional.dropout(functional.relu(self.second(x)), 0.1)"),
        names=_ANYWHERE,
    ),
    _segmenter(
        "wider first block",
        ("Block(3, WIDTH), Block(WIDTH, 2", "Block(3, 2 * WIDTH), Block(2 * WIDTH, 2"),
        ("Block(3 * WIDTH, WIDTH)", "Block(4 * WIDTH, WIDTH)"),
        names=_ANYWHERE,
    ),
    _segmenter(
        "wider decoder",
        (
            "Block(6 * WIDTH, 2 * WIDTH), Block(3 * WIDTH, WIDTH)",
            "Block(6 * WIDTH, 5 * WIDTH), Block(6 * WIDTH, WIDTH)",
        ),
        names=("decoder",),
    ),
    _segmenter("averaged weights", ('amp="fp16",', 'amp="fp16", ema_decay=0.99,'), names=("average",)),
    _segmenter("no mixed precision", ('amp="fp16",', "amp=None,"), names=_ANYWHERE),
    _segmenter(
        "targets as twelve planes of floats",
        ("torch.zeros(n, SIDE, SIDE, dtype=torch.int64)", "torch.zeros(n, 12, SIDE, SIDE)"),
        names=("(input)", "input", "(loss)"),
    ),
    _segmenter(
        "a second loss in float32",
        (_CROSS, _CROSS + " + outputs.float().softmax(1).square().mean()"),
        names=("(loss)", "loss"),
    ),
    _segmenter(
        "outputs kept from step to step",
        (_CROSS, "HISTORY.append(outputs)\n    " + _CROSS),
        ("SIDE = 96", "SIDE = 96\nHISTORY: list[Tensor] = []"),
        names=_ANYWHERE,
    ),
    _segmenter(
        "features kept for a plot",
        (
            "x = functional.interpolate(skips.pop()",
            "self.features = list(skips)\n        x = functional.interpolate(skips.pop()",
        ),
        names=("encoder", "activation"),
    ),
    _segmenter("larger images", ("SIDE = 96", "SIDE = 112"), names=_ANYWHERE),
    _segmenter(
        "auxiliary head",
        (
            "self.head = nn.Conv2d(WIDTH, 12, 1)",
            "self.head = nn.Conv2d(WIDTH, 12, 1)\n        self.auxiliary = nn.Sequential("
            "nn.Conv2d(WIDTH, 128, 3, padding=1), nn.ReLU(), nn.Conv2d(128, 12, 1))",
        ),
        ("return self.head(x)", "return self.head(x) + self.auxiliary(x)"),
        names=("auxiliary",),
    ),
    _segmenter(
        "a third convolution in each block",
        (
            "self.second = nn.Conv2d(outputs, outputs, 3, padding=1)",
            "self.second = nn.Conv2d(outputs, outputs, 3, padding=1)\n"
            "        self.third = nn.Conv2d(outputs, outputs, 3, padding=1)",
        ),
        (_SECOND, "return self.third(functional.relu(self.second(x), inplace=True))"),
        names=_ANYWHERE,
    ),
    _segmenter(
        "normalisation that autocast computes in float32",
        ("nn.BatchNorm2d(outputs)", "nn.GroupNorm(8, outputs)"),
        names=(*_ANYWHERE, "norm"),
    ),
    _language_model("twice the layers", ("LAYERS = 4", "LAYERS = 8"), names=("blocks",)),
    _language_model("no checkpoints", ("checkpoint(block, x, use_reentrant=False)", "block(x)"), names=("blocks",)),
    _language_model(
        "attention written out",
        (
            "functional.scaled_dot_product_attention(q, k, v, is_causal=True)",
            "(q @ k.transpose(-1, -2)).softmax(-1) @ v",
        ),
        names=("attention", "blocks"),
    ),
    _language_model(
        "AdamW in place of SGD",
        ("torch.optim.SGD(parameters, lr=0.1, momentum=0.9)", "torch.optim.AdamW(parameters, lr=1e-3)"),
        names=("optimizer",),
    ),
    _language_model(
        "head with weights of its own", ("        self.head.weight = self.embedding.weight\n", ""), names=("head",)
    ),
    _language_model("twice the words", ("WORDS = 2048", "WORDS = 4096"), names=("head", "embedding", "loss")),
    _language_model(
        "logits copied in float32",
        (_WORDS_CROSS, "return functional.cross_entropy(outputs.flatten(0, 1).float().clone(), targets.flatten())"),
        names=("loss",),
    ),
    _language_model(
        "targets as one-hot rows",
        (
            _WORDS_CROSS,
            "wanted = functional.one_hot(targets.flatten(), WORDS).float()\n"
            "    return functional.cross_entropy(outputs.flatten(0, 1), wanted)",
        ),
        names=("loss",),
    ),
    _language_model(
        "all hidden states kept",
        ("        for block in self.blocks:\n", "        states = []\n        for block in self.blocks:\n"),
        (
            "x = checkpoint(block, x, use_reentrant=False)",
            "x = checkpoint(block, x, use_reentrant=False)\n            states.append(x.exp() * x)",
        ),
        ("self.head(self.norm(x))", "self.head(self.norm(x + torch.stack(states).mean(0)))"),
        names=("(forward)", "activation"),
    ),
    _language_model(
        "wider feed-forward",
        ("nn.Linear(WIDTH, 4 * WIDTH)", "nn.Linear(WIDTH, 12 * WIDTH)"),
        ("nn.Linear(4 * WIDTH, WIDTH)", "nn.Linear(12 * WIDTH, WIDTH)"),
        names=("blocks",),
    ),
    _language_model(
        "penalty on the logits",
        (_WORDS_CROSS, _WORDS_CROSS + " + 1e-4 * outputs.float().logsumexp(-1).square().mean()"),
        names=("loss",),
    ),
    _language_model("averaged weights", ('amp="bf16",', 'amp="bf16", ema_decay=0.999,'), names=("average",)),
    _language_model("no mixed precision", ('amp="bf16",', "amp=None,"), names=(*_ANYWHERE, "head", "loss")),
    _language_model(
        "outputs kept from step to step",
        (_WORDS_CROSS, "HISTORY.append(outputs)\n    " + _WORDS_CROSS),
        ("WORDS = 2048", "WORDS = 2048\nHISTORY: list[Tensor] = []"),
        names=(*_ANYWHERE, "head", "loss"),
    ),
    _language_model(
        "a frozen copy of the blocks",
        ("import torch\n", "import copy\n\nimport torch\n"),
        (
            "        self.norm = nn.LayerNorm(WIDTH)\n        self.head",
            "        self.teacher = copy.deepcopy(self.blocks).requires_grad_(False)\n"
            "        self.norm = nn.LayerNorm(WIDTH)\n        self.head",
        ),
        names=("teacher",),
    ),
    _language_model("longer texts", ("LENGTH = 256", "LENGTH = 288"), names=(*_ANYWHERE, "head", "loss")),
)

REFACTORINGS = (
    # These two hold more, but not when most is held.
    _segmenter(
        "log-softmax in float32 at the end",
        ("return self.head(x)", "return self.head(x).float().log_softmax(1)"),
    ),
    _segmenter(
        "upsampling in float32",
        (
            "functional.interpolate(x, scale_factor=2)",
            'functional.interpolate(x.float(), scale_factor=2, mode="bilinear")',
        ),
    ),
    _segmenter("attributes renamed", ("self.first", "self.reduce"), ("self.second", "self.refine")),
    _segmenter("modules renamed", ("self.encoder", "self.down"), ("self.decoder", "self.up")),
    _segmenter("pooling as a module", ("functional.max_pool2d(x, 2)", "nn.MaxPool2d(2)(x)")),
    _segmenter("ReLU as a module", (_SECOND, "return nn.ReLU(inplace=True)(self.second(x))")),
    _segmenter("dimension named", ("torch.cat([x, skips.pop()], 1)", "torch.cat((x, skips.pop()), dim=1)")),
    _segmenter("an upsampling by one left out", ("functional.interpolate(skips.pop(), scale_factor=1)", "skips.pop()")),
    _segmenter("constant written otherwise", ("WIDTH = 32", "WIDTH = 4 * 8")),
    _segmenter("another learning rate", ("lr=1e-3", "lr=3e-4, weight_decay=0.05")),
    _segmenter("class renamed", ("Segmenter", "UNet")),
    _segmenter(
        "blocks in a Sequential",
        ("self.encoder = nn.ModuleList([", "self.encoder = nn.Sequential(*["),
    ),
    _segmenter("loss as a module", (_CROSS, "return nn.CrossEntropyLoss()(outputs, targets)")),
    _segmenter(
        "weights drawn otherwise",
        (
            "self.norm = nn.BatchNorm2d(outputs)",
            "nn.init.kaiming_normal_(self.first.weight)\n        self.norm = nn.BatchNorm2d(outputs)",
        ),
    ),
    _segmenter("other random data", ("torch.randn(n, 3, SIDE, SIDE)", "torch.rand(n, 3, SIDE, SIDE)")),
    _segmenter(
        "a function taken out",
        (
            "def loss(",
            "def _by_pixel(outputs: Tensor, targets: Tensor) -> Tensor:\n    "
            + "return functional.nll_loss(functional.log_softmax(outputs, 1), targets)\n\n\ndef loss(",
        ),
        (_CROSS, "return _by_pixel(outputs, targets)"),
    ),
    _segmenter("loop with numbers", ("for block in self.decoder:", "for _, block in enumerate(self.decoder):")),
    _language_model("attributes renamed", ("self.into", "self.qkv"), ("self.out", "self.project")),
    _language_model("modules renamed", ("self.blocks", "self.layers")),
    _language_model("GELU as a module", ("functional.gelu(", "nn.GELU()(")),
    _language_model(
        "heads by unflatten", (".view(batch, length, 3, HEADS, WIDTH // HEADS)", ".unflatten(-1, (3, HEADS, -1))")
    ),
    _language_model("flatten in place of reshape", (".reshape(batch, length, WIDTH)", ".flatten(2)")),
    _language_model(
        "other random data",
        ("torch.zeros(n, LENGTH, dtype=torch.int64), torch", "torch.randint(WORDS, (n, LENGTH)), torch"),
    ),
    _language_model("another momentum", ("momentum=0.9", "momentum=0.95")),
    _language_model("loss as a module", ("functional.cross_entropy(", "nn.CrossEntropyLoss()(")),
    _language_model("view in place of flatten", ("outputs.flatten(0, 1)", "outputs.view(-1, WORDS)")),
    _language_model("class renamed", ("LanguageModel", "Decoder")),
    _language_model(
        "hook of a checkpoint named",
        ("checkpoint(block, x, use_reentrant=False)", "checkpoint(block.__call__, x, use_reentrant=False)"),
    ),
    _language_model(
        "weights drawn otherwise",
        (
            "        self.head.weight = ",
            "        nn.init.normal_(self.embedding.weight, std=0.02)\n        self.head.weight = ",
        ),
    ),
    _language_model("loop with numbers", ("for block in self.blocks:", "for block in list(self.blocks):")),
    _language_model("constant written otherwise", ("WIDTH = 256", "WIDTH = 2**8")),
    _language_model(
        "residual in two lines",
        (
            "        x = x + self.attention(self.before(x))\n",
            "        mixed = self.attention(self.before(x))\n        x = x + mixed\n",
        ),
    ),
)

import torch
import torch.nn as nn
import torch.nn.functional as F

from .registry import MODELS


def cbr(i, o):
    return nn.Sequential(nn.Conv2d(i, o, 3, padding=1, bias=False), nn.GroupNorm(8, o), nn.GELU())


@MODELS.register_module
class LightUNet(nn.Module):
    def __init__(self, width=32, num_classes=21):
        super().__init__()
        w = [width * 2**i for i in range(4)]
        self.stem = cbr(3, w[0])
        self.down = nn.ModuleList(cbr(a, b) for a, b in zip(w[:-1], w[1:]))
        self.up = nn.ModuleList(cbr(a + b, a) for a, b in zip(w[:-1], w[1:]))
        self.head = nn.Conv2d(w[0], num_classes, 1)
        self.aux = nn.Conv2d(w[-1], num_classes, 1)

    def forward(self, img, return_loss=False, gt=None):
        feats = [self.stem(img)]
        for layer in self.down:
            feats.append(layer(F.max_pool2d(feats[-1], 2)))
        x = feats[-1]
        for layer, skip in zip(reversed(self.up), reversed(feats[:-1])):
            x = F.interpolate(x, size=skip.shape[2:], mode="bilinear", align_corners=False)
            x = layer(torch.cat([x, skip], 1))
        logits = self.head(x)
        if not return_loss:
            return logits.argmax(1)
        aux = F.interpolate(self.aux(feats[-1]), size=img.shape[2:], mode="bilinear")
        return {
            "loss_ce": F.cross_entropy(logits, gt, ignore_index=255),
            "loss_aux": 0.4 * F.cross_entropy(aux, gt, ignore_index=255),
        }

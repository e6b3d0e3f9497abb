"""A one-stage detector trained as YOLO repositories do: mosaic, own loss, EMA, warm-up, nominal batch of 64."""

import argparse
import math
import random
import time
from copy import deepcopy
from pathlib import Path

import cv2
import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm


class Conv(nn.Module):
    def __init__(self, c1, c2, k=1, s=1, p=None):
        super().__init__()
        self.conv = nn.Conv2d(c1, c2, k, s, k // 2 if p is None else p, bias=False)
        self.bn = nn.BatchNorm2d(c2, eps=1e-3, momentum=0.03)
        self.act = nn.SiLU(inplace=True)

    def forward(self, x):
        return self.act(self.bn(self.conv(x)))


class C3(nn.Module):
    def __init__(self, c1, c2, n=1):
        super().__init__()
        c_ = c2 // 2
        self.cv1, self.cv2, self.cv3 = Conv(c1, c_), Conv(c1, c_), Conv(2 * c_, c2)
        self.m = nn.Sequential(*(nn.Sequential(Conv(c_, c_, 1), Conv(c_, c_, 3)) for _ in range(n)))

    def forward(self, x):
        return self.cv3(torch.cat((self.m(self.cv1(x)), self.cv2(x)), 1))


class Detect(nn.Module):
    def __init__(self, nc, anchors, ch):
        super().__init__()
        self.nc, self.no, self.nl, self.na = nc, nc + 5, len(anchors), len(anchors[0]) // 2
        self.register_buffer("anchors", torch.tensor(anchors).float().view(self.nl, -1, 2))
        self.stride = torch.tensor([8.0, 16.0, 32.0])
        self.m = nn.ModuleList(nn.Conv2d(x, self.no * self.na, 1) for x in ch)

    def forward(self, xs):
        z = []
        for i, x in enumerate(xs):
            x = self.m[i](x)
            bs, _, ny, nx = x.shape
            xs[i] = x.view(bs, self.na, self.no, ny, nx).permute(0, 1, 3, 4, 2).contiguous()
            if not self.training:
                yv, xv = torch.meshgrid(
                    torch.arange(ny, device=x.device), torch.arange(nx, device=x.device), indexing="ij"
                )
                grid = torch.stack((xv, yv), 2).expand(1, self.na, ny, nx, 2).float() - 0.5
                xy, wh, conf = xs[i].sigmoid().split((2, 2, self.nc + 1), 4)
                xy = (xy * 2 + grid) * self.stride[i]
                wh = (wh * 2) ** 2 * self.anchors[i].view(1, self.na, 1, 1, 2)
                z.append(torch.cat((xy, wh, conf), 4).view(bs, self.na * nx * ny, self.no))
        return xs if self.training else (torch.cat(z, 1), xs)


class Model(nn.Module):
    def __init__(self, nc=8, w=32):
        super().__init__()
        anchors = [[10, 13, 16, 30, 33, 23], [30, 61, 62, 45, 59, 119], [116, 90, 156, 198, 373, 326]]
        self.stem = nn.Sequential(Conv(3, w, 6, 2, 2), Conv(w, w * 2, 3, 2), C3(w * 2, w * 2))
        self.p3 = nn.Sequential(Conv(w * 2, w * 4, 3, 2), C3(w * 4, w * 4, 2))
        self.p4 = nn.Sequential(Conv(w * 4, w * 8, 3, 2), C3(w * 8, w * 8, 3))
        self.p5 = nn.Sequential(Conv(w * 8, w * 16, 3, 2), C3(w * 16, w * 16))
        self.up = nn.Upsample(scale_factor=2, mode="nearest")
        self.l5, self.n4 = Conv(w * 16, w * 8), C3(w * 16, w * 8)
        self.l4, self.n3 = Conv(w * 8, w * 4), C3(w * 8, w * 4)
        self.detect = Detect(nc, anchors, (w * 4, w * 8, w * 16))

    def forward(self, x):
        p3 = self.p3(self.stem(x))
        p4 = self.p4(p3)
        p5 = self.p5(p4)
        n4 = self.n4(torch.cat((self.up(self.l5(p5)), p4), 1))
        n3 = self.n3(torch.cat((self.up(self.l4(n4)), p3), 1))
        return self.detect([n3, n4, p5])


def bbox_ciou(box1, box2, eps=1e-7):
    x1, y1, w1, h1 = box1.chunk(4, -1)
    x2, y2, w2, h2 = box2.chunk(4, -1)
    inter = (torch.min(x1 + w1 / 2, x2 + w2 / 2) - torch.max(x1 - w1 / 2, x2 - w2 / 2)).clamp(0) * (
        torch.min(y1 + h1 / 2, y2 + h2 / 2) - torch.max(y1 - h1 / 2, y2 - h2 / 2)
    ).clamp(0)
    union = w1 * h1 + w2 * h2 - inter + eps
    iou = inter / union
    cw = torch.max(x1 + w1 / 2, x2 + w2 / 2) - torch.min(x1 - w1 / 2, x2 - w2 / 2)
    ch = torch.max(y1 + h1 / 2, y2 + h2 / 2) - torch.min(y1 - h1 / 2, y2 - h2 / 2)
    c2 = cw**2 + ch**2 + eps
    rho2 = (x1 - x2) ** 2 + (y1 - y2) ** 2
    v = (4 / math.pi**2) * (torch.atan(w2 / (h2 + eps)) - torch.atan(w1 / (h1 + eps))) ** 2
    with torch.no_grad():
        alpha = v / (v - iou + (1 + eps))
    return (iou - (rho2 / c2 + v * alpha)).squeeze(-1)


class ComputeLoss:
    def __init__(self, model, hyp):
        device = next(model.parameters()).device
        self.BCEcls = nn.BCEWithLogitsLoss(pos_weight=torch.tensor([hyp["cls_pw"]], device=device))
        self.BCEobj = nn.BCEWithLogitsLoss(pos_weight=torch.tensor([hyp["obj_pw"]], device=device))
        self.balance = [4.0, 1.0, 0.4]
        self.hyp, self.device = hyp, device
        m = model.detect
        self.na, self.nc, self.nl, self.anchors, self.stride = m.na, m.nc, m.nl, m.anchors, m.stride

    def __call__(self, p, targets):
        lcls = torch.zeros(1, device=self.device)
        lbox = torch.zeros(1, device=self.device)
        lobj = torch.zeros(1, device=self.device)
        tcls, tbox, indices, anchors = self.build_targets(p, targets)
        for i, pi in enumerate(p):
            b, a, gj, gi = indices[i]
            tobj = torch.zeros(pi.shape[:4], dtype=pi.dtype, device=self.device)
            if n := b.shape[0]:
                pxy, pwh, _, pcls = pi[b, a, gj, gi].split((2, 2, 1, self.nc), 1)
                pxy = pxy.sigmoid() * 2 - 0.5
                pwh = (pwh.sigmoid() * 2) ** 2 * anchors[i]
                iou = bbox_ciou(torch.cat((pxy, pwh), 1), tbox[i])
                lbox += (1.0 - iou).mean()
                tobj[b, a, gj, gi] = iou.detach().clamp(0).type(tobj.dtype)
                t = torch.full_like(pcls, 0.0, device=self.device)
                t[range(n), tcls[i]] = 1.0
                lcls += self.BCEcls(pcls, t)
            lobj += self.BCEobj(pi[..., 4], tobj) * self.balance[i]
        lbox *= self.hyp["box"]
        lobj *= self.hyp["obj"]
        lcls *= self.hyp["cls"]
        bs = p[0].shape[0]
        return (lbox + lobj + lcls) * bs, torch.cat((lbox, lobj, lcls)).detach()

    def build_targets(self, p, targets):
        na, nt = self.na, targets.shape[0]
        tcls, tbox, indices, anch = [], [], [], []
        gain = torch.ones(7, device=self.device)
        ai = torch.arange(na, device=self.device).float().view(na, 1).repeat(1, nt)
        targets = torch.cat((targets.repeat(na, 1, 1), ai[..., None]), 2)
        g = 0.5
        off = torch.tensor([[0, 0], [1, 0], [0, 1], [-1, 0], [0, -1]], device=self.device).float() * g
        for i in range(self.nl):
            anchors, shape = self.anchors[i] / self.stride[i], p[i].shape
            gain[2:6] = torch.tensor(shape)[[3, 2, 3, 2]]
            t = targets * gain
            if nt:
                r = t[..., 4:6] / anchors[:, None]
                j = torch.max(r, 1 / r).max(2)[0] < self.hyp["anchor_t"]
                t = t[j]
                gxy = t[:, 2:4]
                gxi = gain[[2, 3]] - gxy
                j, k = ((gxy % 1 < g) & (gxy > 1)).T
                l, m = ((gxi % 1 < g) & (gxi > 1)).T
                j = torch.stack((torch.ones_like(j), j, k, l, m))
                t = t.repeat((5, 1, 1))[j]
                offsets = (torch.zeros_like(gxy)[None] + off[:, None])[j]
            else:
                t = targets[0]
                offsets = 0
            bc, gxy, gwh, a = t.chunk(4, 1)
            a, (b, c) = a.long().view(-1), bc.long().T
            gij = (gxy - offsets).long()
            gi, gj = gij.T
            indices.append((b, a, gj.clamp_(0, shape[2] - 1), gi.clamp_(0, shape[3] - 1)))
            tbox.append(torch.cat((gxy - gij, gwh), 1))
            anch.append(anchors[a])
            tcls.append(c)
        return tcls, tbox, indices, anch


class Shapes(Dataset):
    def __init__(self, n, imgsz, nc, mosaic):
        self.n, self.imgsz, self.nc, self.mosaic = n, imgsz, nc, mosaic

    def __len__(self):
        return self.n

    def load(self, index, size):
        rng = np.random.default_rng(index)
        img = np.full((size, size, 3), 114, np.uint8)
        labels = []
        for _ in range(rng.integers(1, 7)):
            c = int(rng.integers(self.nc))
            w, h = rng.uniform(0.08, 0.5, 2)
            x, y = rng.uniform(w / 2, 1 - w / 2), rng.uniform(h / 2, 1 - h / 2)
            p1, p2 = (
                (int((x - w / 2) * size), int((y - h / 2) * size)),
                (int((x + w / 2) * size), int((y + h / 2) * size)),
            )
            cv2.rectangle(img, p1, p2, rng.integers(0, 255, 3).tolist(), -1)
            labels.append((c, x, y, w, h))
        return img, np.array(labels, np.float32)

    def load_mosaic(self, index):
        s = self.imgsz // 2
        img4, labels4 = np.full((s * 2, s * 2, 3), 114, np.uint8), []
        for i, k in enumerate([index, *random.choices(range(self.n), k=3)]):
            img, labels = self.load(k, s)
            ox, oy = (i % 2) * s, (i // 2) * s
            img4[oy : oy + s, ox : ox + s] = img
            labels[:, 1:] /= 2
            labels[:, 1] += 0.5 * (i % 2)
            labels[:, 2] += 0.5 * (i // 2)
            labels4.append(labels)
        return img4, np.concatenate(labels4)

    def __getitem__(self, index):
        img, labels = self.load_mosaic(index) if self.mosaic else self.load(index, self.imgsz)
        if self.mosaic and random.random() < 0.5:
            img = np.fliplr(img)
            labels[:, 1] = 1 - labels[:, 1]
        out = torch.zeros((len(labels), 6))
        out[:, 1:] = torch.from_numpy(labels)
        return torch.from_numpy(np.ascontiguousarray(img.transpose(2, 0, 1)[::-1])), out

    @staticmethod
    def collate_fn(batch):
        im, label = zip(*batch)
        for i, lb in enumerate(label):
            lb[:, 0] = i
        return torch.stack(im, 0), torch.cat(label, 0)


class ModelEMA:
    def __init__(self, model, decay=0.9999, tau=2000):
        self.ema = deepcopy(model).eval()
        self.updates = 0
        self.decay = lambda x: decay * (1 - math.exp(-x / tau))
        for p in self.ema.parameters():
            p.requires_grad_(False)

    def update(self, model):
        self.updates += 1
        d = self.decay(self.updates)
        msd = model.state_dict()
        for k, v in self.ema.state_dict().items():
            if v.dtype.is_floating_point:
                v *= d
                v += (1 - d) * msd[k].detach()


def smart_optimizer(model, lr, momentum, decay):
    g = [], [], []
    bn = tuple(v for k, v in nn.__dict__.items() if "Norm" in k)
    for v in model.modules():
        for p_name, p in v.named_parameters(recurse=0):
            if p_name == "bias":
                g[2].append(p)
            elif p_name == "weight" and isinstance(v, bn):
                g[1].append(p)
            else:
                g[0].append(p)
    optimizer = torch.optim.SGD(g[2], lr=lr, momentum=momentum, nesterov=True)
    optimizer.add_param_group({"params": g[0], "weight_decay": decay})
    optimizer.add_param_group({"params": g[1], "weight_decay": 0.0})
    return optimizer


@torch.no_grad()
def val(model, loader, device, compute_loss, half, conf_thres=0.25):
    model.eval()
    loss, found = torch.zeros(3, device=device), 0
    if half:
        model.half()
    for imgs, targets in tqdm(loader, desc="val"):
        imgs = imgs.to(device, non_blocking=True)
        imgs = (imgs.half() if half else imgs.float()) / 255
        targets = targets.to(device)
        preds, train_out = model(imgs)
        loss += compute_loss([x.float() for x in train_out], targets)[1]
        for pred in preds:
            pred = pred[pred[:, 4] > conf_thres]
            if not pred.shape[0]:
                continue
            conf, cls = (pred[:, 5:] * pred[:, 4:5]).max(1, keepdim=True)
            found += int((conf > conf_thres).sum())
    model.float()
    return (loss.cpu() / len(loader)).tolist(), found


def train(hyp, opt):
    device = torch.device(f"cuda:{opt.device}" if opt.device.isnumeric() and torch.cuda.is_available() else "cpu")
    cuda = device.type != "cpu"
    save_dir = Path(opt.project) / opt.name
    (save_dir / "weights").mkdir(parents=True, exist_ok=True)
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)
    model = Model(nc=8).to(device)
    gs, imgsz, batch_size, nbs = 32, opt.imgsz, opt.batch_size, 64
    accumulate = max(round(nbs / batch_size), 1)
    hyp["weight_decay"] *= batch_size * accumulate / nbs
    optimizer = smart_optimizer(model, hyp["lr0"], hyp["momentum"], hyp["weight_decay"])
    lf = lambda x: (1 - x / opt.epochs) * (1.0 - hyp["lrf"]) + hyp["lrf"]  # noqa: E731
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lr_lambda=lf)
    ema = ModelEMA(model)
    train_loader = DataLoader(
        Shapes(256, imgsz, 8, mosaic=True), batch_size=batch_size, shuffle=True, num_workers=opt.workers,
        pin_memory=True, drop_last=True, collate_fn=Shapes.collate_fn,
    )  # fmt: skip
    val_loader = DataLoader(
        Shapes(32, imgsz, 8, mosaic=False), batch_size=batch_size * 2, num_workers=opt.workers, pin_memory=True,
        collate_fn=Shapes.collate_fn,
    )  # fmt: skip
    nb = len(train_loader)
    nw = max(round(hyp["warmup_epochs"] * nb), 100)
    last_opt_step = -1
    scaler = torch.amp.GradScaler("cuda", enabled=cuda)
    compute_loss = ComputeLoss(model, hyp)
    t0 = time.time()
    for epoch in range(opt.epochs):
        model.train()
        mloss = torch.zeros(3, device=device)
        print(("\n" + "%11s" * 7) % ("Epoch", "GPU_mem", "box_loss", "obj_loss", "cls_loss", "Instances", "Size"))
        pbar = tqdm(enumerate(train_loader), total=nb)
        optimizer.zero_grad()
        for i, (imgs, targets) in pbar:
            ni = i + nb * epoch
            imgs = imgs.to(device, non_blocking=True).float() / 255
            if ni <= nw:
                xi = [0, nw]
                accumulate = max(1, np.interp(ni, xi, [1, nbs / batch_size]).round())
                for j, x in enumerate(optimizer.param_groups):
                    x["lr"] = np.interp(ni, xi, [hyp["warmup_bias_lr"] if j == 0 else 0.0, hyp["lr0"] * lf(epoch)])
                    if "momentum" in x:
                        x["momentum"] = np.interp(ni, xi, [hyp["warmup_momentum"], hyp["momentum"]])
            if opt.multi_scale:
                sz = random.randrange(int(imgsz * 0.5), int(imgsz * 1.5) + gs) // gs * gs
                sf = sz / max(imgs.shape[2:])
                if sf != 1:
                    ns = [math.ceil(x * sf / gs) * gs for x in imgs.shape[2:]]
                    imgs = F.interpolate(imgs, size=ns, mode="bilinear", align_corners=False)
            with torch.amp.autocast("cuda", enabled=cuda):
                pred = model(imgs)
                loss, loss_items = compute_loss(pred, targets.to(device))
            scaler.scale(loss).backward()
            if ni - last_opt_step >= accumulate:
                scaler.unscale_(optimizer)
                torch.nn.utils.clip_grad_norm_(model.parameters(), max_norm=10.0)
                scaler.step(optimizer)
                scaler.update()
                optimizer.zero_grad()
                ema.update(model)
                last_opt_step = ni
            mloss = (mloss * i + loss_items) / (i + 1)
            mem = f"{torch.cuda.memory_reserved() / 1e9 if torch.cuda.is_available() else 0:.3g}G"
            pbar.set_description(
                ("%11s" * 2 + "%11.4g" * 5)
                % (f"{epoch}/{opt.epochs - 1}", mem, *mloss, targets.shape[0], imgs.shape[-1])
            )
        scheduler.step()
        results, found = val(deepcopy(ema.ema), val_loader, device, compute_loss, half=cuda)
        ckpt = {"epoch": epoch, "model": deepcopy(model).half().state_dict(), "optimizer": optimizer.state_dict()}
        torch.save(ckpt, save_dir / "weights" / "last.pt")
        with open(save_dir / "results.csv", "a") as f:
            f.write(",".join(f"{x:.5g}" for x in (epoch, *mloss.tolist(), *results, found)) + "\n")
    print(f"{opt.epochs} epochs completed in {(time.time() - t0) / 3600:.3f} hours.")


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--imgsz", "--img", type=int, default=256)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--device", default="0")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--multi-scale", action="store_true")
    parser.add_argument("--project", default="runs/train")
    parser.add_argument("--name", default="exp")
    hyp = dict(
        lr0=0.01, lrf=0.01, momentum=0.937, weight_decay=5e-4, warmup_epochs=3.0, warmup_momentum=0.8,
        warmup_bias_lr=0.1, box=0.05, cls=0.5, cls_pw=1.0, obj=1.0, obj_pw=1.0, anchor_t=4.0,
    )  # fmt: skip
    train(hyp, parser.parse_args())

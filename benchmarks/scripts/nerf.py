import os, sys, time, json, random
import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F
from tqdm import tqdm, trange

device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
np.random.seed(0)
img2mse = lambda x, y: torch.mean((x - y) ** 2)
mse2psnr = lambda x: -10.0 * torch.log(x) / torch.log(torch.Tensor([10.0]))
to8b = lambda x: (255 * np.clip(x, 0, 1)).astype(np.uint8)


class Embedder:
    def __init__(self, multires):
        self.freqs = 2.0 ** torch.linspace(0.0, multires - 1, steps=multires)

    def __call__(self, x):
        return torch.cat([x] + [fn(x * f) for f in self.freqs for fn in (torch.sin, torch.cos)], -1)


class NeRF(nn.Module):
    def __init__(self, D=8, W=128, input_ch=63, input_ch_views=27, skips=[4]):
        super().__init__()
        self.input_ch, self.input_ch_views, self.skips = input_ch, input_ch_views, skips
        self.pts_linears = nn.ModuleList(
            [nn.Linear(input_ch, W)]
            + [nn.Linear(W, W) if i not in skips else nn.Linear(W + input_ch, W) for i in range(D - 1)]
        )
        self.views_linears = nn.ModuleList([nn.Linear(input_ch_views + W, W // 2)])
        self.feature_linear, self.alpha_linear, self.rgb_linear = nn.Linear(W, W), nn.Linear(W, 1), nn.Linear(W // 2, 3)

    def forward(self, x):
        input_pts, input_views = torch.split(x, [self.input_ch, self.input_ch_views], dim=-1)
        h = input_pts
        for i, l in enumerate(self.pts_linears):
            h = F.relu(l(h))
            if i in self.skips:
                h = torch.cat([input_pts, h], -1)
        alpha = self.alpha_linear(h)
        h = torch.cat([self.feature_linear(h), input_views], -1)
        for l in self.views_linears:
            h = F.relu(l(h))
        return torch.cat([self.rgb_linear(h), alpha], -1)


def batchify(fn, chunk):
    return lambda inputs: torch.cat([fn(inputs[i : i + chunk]) for i in range(0, inputs.shape[0], chunk)], 0)


def raw2outputs(raw, z_vals, rays_d):
    dists = z_vals[..., 1:] - z_vals[..., :-1]
    dists = torch.cat([dists, torch.Tensor([1e10]).expand(dists[..., :1].shape)], -1)
    dists = dists * torch.norm(rays_d[..., None, :], dim=-1)
    rgb = torch.sigmoid(raw[..., :3])
    alpha = 1.0 - torch.exp(-F.relu(raw[..., 3]) * dists)
    weights = alpha * torch.cumprod(torch.cat([torch.ones((alpha.shape[0], 1)), 1.0 - alpha + 1e-10], -1), -1)[:, :-1]
    return torch.sum(weights[..., None] * rgb, -2), weights


def sample_pdf(bins, weights, N_samples):
    weights = weights + 1e-5
    pdf = weights / torch.sum(weights, -1, keepdim=True)
    cdf = torch.cumsum(pdf, -1)
    cdf = torch.cat([torch.zeros_like(cdf[..., :1]), cdf], -1)
    u = torch.rand(list(cdf.shape[:-1]) + [N_samples]).contiguous()
    inds = torch.searchsorted(cdf, u, right=True)
    below = torch.max(torch.zeros_like(inds - 1), inds - 1)
    above = torch.min((cdf.shape[-1] - 1) * torch.ones_like(inds), inds)
    inds_g = torch.stack([below, above], -1)
    matched_shape = [inds_g.shape[0], inds_g.shape[1], cdf.shape[-1]]
    cdf_g = torch.gather(cdf.unsqueeze(1).expand(matched_shape), 2, inds_g)
    bins_g = torch.gather(bins.unsqueeze(1).expand(matched_shape), 2, inds_g)
    denom = cdf_g[..., 1] - cdf_g[..., 0]
    denom = torch.where(denom < 1e-5, torch.ones_like(denom), denom)
    t = (u - cdf_g[..., 0]) / denom
    return bins_g[..., 0] + t * (bins_g[..., 1] - bins_g[..., 0])


def run_network(pts, viewdirs, fn, embed, embed_dirs, netchunk):
    flat = torch.reshape(pts, [-1, 3])
    dirs = viewdirs[:, None].expand(pts.shape).reshape(-1, 3)
    out = batchify(fn, netchunk)(torch.cat([embed(flat), embed_dirs(dirs)], -1))
    return torch.reshape(out, list(pts.shape[:-1]) + [out.shape[-1]])


def render_rays(rays_o, rays_d, coarse, fine, embed, embed_dirs, args):
    n = rays_o.shape[0]
    viewdirs = rays_d / torch.norm(rays_d, dim=-1, keepdim=True)
    z_vals = torch.linspace(2.0, 6.0, steps=args["N_samples"]).expand([n, args["N_samples"]])
    z_vals = z_vals + torch.rand(z_vals.shape) * (4.0 / args["N_samples"])
    pts = rays_o[..., None, :] + rays_d[..., None, :] * z_vals[..., :, None]
    rgb0, weights = raw2outputs(run_network(pts, viewdirs, coarse, embed, embed_dirs, args["netchunk"]), z_vals, rays_d)
    z_mid = 0.5 * (z_vals[..., 1:] + z_vals[..., :-1])
    z_samples = sample_pdf(z_mid, weights[..., 1:-1], args["N_importance"]).detach()
    z_vals, _ = torch.sort(torch.cat([z_vals, z_samples], -1), -1)
    pts = rays_o[..., None, :] + rays_d[..., None, :] * z_vals[..., :, None]
    rgb, _ = raw2outputs(run_network(pts, viewdirs, fine, embed, embed_dirs, args["netchunk"]), z_vals, rays_d)
    return rgb, rgb0


def get_rays_np(H, W, focal, c2w):
    i, j = np.meshgrid(np.arange(W, dtype=np.float32), np.arange(H, dtype=np.float32), indexing="xy")
    dirs = np.stack([(i - W * 0.5) / focal, -(j - H * 0.5) / focal, -np.ones_like(i)], -1)
    rays_d = np.sum(dirs[..., np.newaxis, :] * c2w[:3, :3], -1)
    return np.broadcast_to(c2w[:3, -1], np.shape(rays_d)), rays_d


def train():
    args = dict(
        N_rand=1024,
        N_samples=64,
        N_importance=128,
        netchunk=1024 * 64,
        lrate=5e-4,
        basedir="./logs",
        expname="blender",
        i_print=10,
        i_weights=1000,
    )
    H = W = 50
    images = np.random.rand(20, H, W, 3).astype(np.float32)
    poses = np.stack(
        [
            np.eye(4, dtype=np.float32)[:3] + np.array([[0, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 4.0 + i]], np.float32)
            for i in range(20)
        ]
    )
    embed, embed_dirs = Embedder(10), Embedder(4)
    coarse, fine = NeRF().to(device), NeRF().to(device)
    optimizer = torch.optim.Adam(
        params=list(coarse.parameters()) + list(fine.parameters()), lr=args["lrate"], betas=(0.9, 0.999)
    )
    logdir = os.path.join(args["basedir"], args["expname"])
    os.makedirs(logdir, exist_ok=True)
    with open(os.path.join(logdir, "args.txt"), "w") as f:
        json.dump(args, f)
    rays = np.stack([np.stack(get_rays_np(H, W, 60.0, p), 0) for p in poses], 0)
    rays_rgb = np.concatenate([rays, images[:, None]], 1)
    rays_rgb = np.reshape(np.transpose(rays_rgb, [0, 2, 3, 1, 4]), [-1, 3, 3]).astype(np.float32)
    np.random.shuffle(rays_rgb)
    rays_rgb = torch.Tensor(rays_rgb).to(device)
    i_batch = 0
    for i in trange(0, 200000):
        batch = torch.transpose(rays_rgb[i_batch : i_batch + args["N_rand"]], 0, 1)
        i_batch += args["N_rand"]
        if i_batch >= rays_rgb.shape[0]:
            rays_rgb = rays_rgb[torch.randperm(rays_rgb.shape[0])]
            i_batch = 0
        rgb, rgb0 = render_rays(batch[0], batch[1], coarse, fine, embed, embed_dirs, args)
        optimizer.zero_grad()
        loss = img2mse(rgb, batch[2])
        psnr = mse2psnr(loss)
        loss = loss + img2mse(rgb0, batch[2])
        loss.backward()
        optimizer.step()
        new_lrate = args["lrate"] * (0.1 ** (i / 250000))
        for g in optimizer.param_groups:
            g["lr"] = new_lrate
        if i % args["i_print"] == 0:
            tqdm.write(f"[TRAIN] Iter: {i} Loss: {loss.item()}  PSNR: {psnr.item()}")
        if i % args["i_weights"] == 0 and i > 0:
            torch.save({"coarse": coarse.state_dict(), "fine": fine.state_dict()}, os.path.join(logdir, f"{i:06d}.tar"))


if __name__ == "__main__":
    torch.set_default_tensor_type("torch.cuda.FloatTensor")
    train()

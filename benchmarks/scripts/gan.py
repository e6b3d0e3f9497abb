"""A DCGAN: two networks, two optimizers, noise drawn on the card, sample images saved."""

import argparse
import os

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

parser = argparse.ArgumentParser()
parser.add_argument("--batchSize", type=int, default=64)
parser.add_argument("--niter", type=int, default=25)
parser.add_argument("--nz", type=int, default=100)
parser.add_argument("--ngf", type=int, default=64)
parser.add_argument("--outf", default="samples")
opt = parser.parse_args()
os.makedirs(opt.outf, exist_ok=True)
device = torch.device("cuda:0")


class Faces(Dataset):
    def __len__(self):
        return 1000

    def __getitem__(self, index):
        return torch.rand(3, 64, 64) * 2 - 1


def weights_init(m):
    if "Conv" in type(m).__name__:
        m.weight.data.normal_(0.0, 0.02)
    elif "BatchNorm" in type(m).__name__:
        m.weight.data.normal_(1.0, 0.02)
        m.bias.data.fill_(0)


def block(i, o, s, p, up):
    conv = nn.ConvTranspose2d if up else nn.Conv2d
    return [conv(i, o, 4, s, p, bias=False), nn.BatchNorm2d(o), nn.ReLU(True) if up else nn.LeakyReLU(0.2, True)]


class Generator(nn.Module):
    def __init__(self, g=opt.ngf):
        super().__init__()
        layers = block(opt.nz, g * 8, 1, 0, True) + block(g * 8, g * 4, 2, 1, True) + block(g * 4, g * 2, 2, 1, True)
        layers += [*block(g * 2, g, 2, 1, True), nn.ConvTranspose2d(g, 3, 4, 2, 1, bias=False), nn.Tanh()]
        self.main = nn.Sequential(*layers)

    def forward(self, z):
        return self.main(z)


class Discriminator(nn.Module):
    def __init__(self, d=opt.ngf):
        super().__init__()
        layers = [nn.Conv2d(3, d, 4, 2, 1, bias=False), nn.LeakyReLU(0.2, inplace=True)]
        layers += block(d, d * 2, 2, 1, False) + block(d * 2, d * 4, 2, 1, False) + block(d * 4, d * 8, 2, 1, False)
        self.main = nn.Sequential(*layers, nn.Conv2d(d * 8, 1, 4, 1, 0, bias=False), nn.Sigmoid())

    def forward(self, x):
        return self.main(x).view(-1)


netG, netD = Generator().to(device), Discriminator().to(device)
netG.apply(weights_init)
netD.apply(weights_init)
criterion = nn.BCELoss()
fixed_noise = torch.randn(opt.batchSize, opt.nz, 1, 1, device=device)
optimizerD = torch.optim.Adam(netD.parameters(), lr=2e-4, betas=(0.5, 0.999))
optimizerG = torch.optim.Adam(netG.parameters(), lr=2e-4, betas=(0.5, 0.999))
loader = DataLoader(Faces(), batch_size=opt.batchSize, shuffle=True, num_workers=2)
for epoch in range(opt.niter):
    for i, data in enumerate(loader, 0):
        netD.zero_grad()
        real = data.to(device)
        label = torch.full((real.size(0),), 1.0, dtype=real.dtype, device=device)
        output = netD(real)
        errD_real = criterion(output, label)
        errD_real.backward()
        D_x = output.mean().item()
        fake = netG(torch.randn(real.size(0), opt.nz, 1, 1, device=device))
        label.fill_(0.0)
        errD_fake = criterion(netD(fake.detach()), label)
        errD_fake.backward()
        optimizerD.step()
        netG.zero_grad()
        label.fill_(1.0)
        errG = criterion(netD(fake), label)
        errG.backward()
        optimizerG.step()
        print(
            f"[{epoch}/{opt.niter}][{i}/{len(loader)}] D {(errD_real + errD_fake).item():.3f} G {errG.item():.3f} {D_x}"
        )
        if i % 100 == 0:
            with torch.no_grad():
                np.save(f"{opt.outf}/fake_{epoch:03d}.npy", netG(fixed_noise).detach().cpu().numpy())
    torch.save(netG.state_dict(), f"{opt.outf}/netG_{epoch}.pth")

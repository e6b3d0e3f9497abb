"""Variational autoencoder in Lightning: DataModule, callbacks, a schedule, several metrics, gradient clipping, test."""

import argparse

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import EarlyStopping, LearningRateMonitor, ModelCheckpoint
from pytorch_lightning.loggers import CSVLogger
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset, random_split


class Data(pl.LightningDataModule):
    def __init__(self, batch_size):
        super().__init__()
        self.batch_size = batch_size

    def setup(self, stage=None):
        self.train, self.val = random_split(TensorDataset(torch.rand(200, 1, 32, 32)), [160, 40])

    def train_dataloader(self):
        return DataLoader(self.train, self.batch_size, shuffle=True, num_workers=2, persistent_workers=True)

    def val_dataloader(self):
        return DataLoader(self.val, self.batch_size, num_workers=2)

    def test_dataloader(self):
        return DataLoader(self.val, self.batch_size)


class VAE(pl.LightningModule):
    def __init__(self, width=32, latent=16, lr=1e-3):
        super().__init__()
        self.save_hyperparameters()
        self.encoder = nn.Sequential(
            nn.Conv2d(1, width, 4, 2, 1), nn.SiLU(), nn.Conv2d(width, width * 2, 4, 2, 1), nn.SiLU(), nn.Flatten()
        )
        self.mean = nn.Linear(width * 2 * 64, latent)
        self.log_variance = nn.Linear(width * 2 * 64, latent)
        self.decoder = nn.Sequential(
            nn.Linear(latent, width * 2 * 64), nn.Unflatten(1, (width * 2, 8, 8)), nn.SiLU(),
            nn.ConvTranspose2d(width * 2, width, 4, 2, 1), nn.SiLU(),
            nn.ConvTranspose2d(width, 1, 4, 2, 1), nn.Sigmoid(),
        )  # fmt: skip
        self.register_buffer("scale", torch.ones(1))

    def forward(self, x):
        hidden = self.encoder(x)
        mean, log_variance = self.mean(hidden), self.log_variance(hidden)
        z = mean + torch.randn_like(mean) * torch.exp(0.5 * log_variance)
        return self.decoder(z) * self.scale, mean, log_variance

    def _loss(self, batch):
        (x,) = batch
        output, mean, log_variance = self(x)
        reconstruction = F.binary_cross_entropy(output.float().clamp(0, 1), x, reduction="mean")
        divergence = -0.5 * torch.mean(1 + log_variance - mean.pow(2) - log_variance.exp())
        return reconstruction + 0.1 * divergence, reconstruction

    def training_step(self, batch, batch_idx):
        loss, reconstruction = self._loss(batch)
        self.log_dict({"train/loss": loss, "train/reconstruction": reconstruction}, prog_bar=True)
        return loss

    def validation_step(self, batch, batch_idx):
        loss, _ = self._loss(batch)
        self.log("val/loss", loss, prog_bar=True)

    def test_step(self, batch, batch_idx):
        self.log("test/loss", self._loss(batch)[0])

    def configure_optimizers(self):
        optimizer = torch.optim.AdamW(self.parameters(), lr=self.hparams.lr)
        scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, patience=2)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "monitor": "val/loss"}}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--batch-size", type=int, default=20)
    parser.add_argument("--accumulate-grad-batches", type=int, default=1)
    args = parser.parse_args()
    pl.seed_everything(1)
    trainer = pl.Trainer(
        max_epochs=5,
        accelerator="auto",
        devices=1,
        gradient_clip_val=0.5,
        accumulate_grad_batches=args.accumulate_grad_batches,
        logger=CSVLogger("lightning"),
        callbacks=[
            ModelCheckpoint(monitor="val/loss", save_last=True),
            EarlyStopping("val/loss", patience=3),
            LearningRateMonitor(),
        ],
        log_every_n_steps=1,
    )
    data = Data(args.batch_size)
    trainer.fit(VAE(), datamodule=data)
    trainer.test(datamodule=data, ckpt_path="best")


if __name__ == "__main__":
    main()

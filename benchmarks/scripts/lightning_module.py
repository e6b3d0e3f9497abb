"""A LightningModule with a Trainer: sanity check, validation, checkpoint callback, CSV logger."""

import argparse

import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from pytorch_lightning.callbacks import LearningRateMonitor, ModelCheckpoint
from pytorch_lightning.loggers import CSVLogger
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


class LitAutoEncoder(pl.LightningModule):
    def __init__(self, width=512, lr=1e-3):
        super().__init__()
        self.save_hyperparameters()
        self.encoder = nn.Sequential(nn.Linear(784, width), nn.ReLU(), nn.Linear(width, 64))
        self.decoder = nn.Sequential(nn.Linear(64, width), nn.ReLU(), nn.Linear(width, 784))

    def training_step(self, batch, batch_idx):
        x = batch[0].view(batch[0].size(0), -1)
        loss = F.mse_loss(self.decoder(self.encoder(x)), x)
        self.log("train_loss", loss, prog_bar=True)
        return loss

    def validation_step(self, batch, batch_idx):
        x = batch[0].view(batch[0].size(0), -1)
        self.log("val_loss", F.mse_loss(self.decoder(self.encoder(x)), x))

    def configure_optimizers(self):
        optimizer = torch.optim.AdamW(self.parameters(), lr=self.hparams.lr)
        return {"optimizer": optimizer, "lr_scheduler": torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 10)}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--batch_size", type=int, default=64)
    parser.add_argument("--precision", default="16-mixed")
    parser.add_argument("--max_epochs", type=int, default=3)
    args = parser.parse_args()
    data = TensorDataset(torch.rand(2048, 1, 28, 28))
    train = DataLoader(data, batch_size=args.batch_size, shuffle=True, num_workers=3)
    val = DataLoader(data, batch_size=args.batch_size, num_workers=3)
    trainer = pl.Trainer(
        max_epochs=args.max_epochs, accelerator="gpu", devices=1, precision=args.precision,
        logger=CSVLogger("logs"), callbacks=[ModelCheckpoint(monitor="val_loss"), LearningRateMonitor()],
        enable_progress_bar=False,
    )  # fmt: skip
    trainer.fit(LitAutoEncoder(), train, val)


if __name__ == "__main__":
    main()

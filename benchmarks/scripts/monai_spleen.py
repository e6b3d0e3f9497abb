"""3D segmentation of one organ with MONAI: cached items, random patches, Dice with cross-entropy, sliding window."""

import logging
import sys

import numpy as np
import torch
from monai.data import CacheDataset, DataLoader, decollate_batch
from monai.inferers import sliding_window_inference
from monai.losses import DiceCELoss
from monai.metrics import DiceMetric
from monai.networks.layers import Norm
from monai.networks.nets import UNet
from monai.transforms import (
    AsDiscrete,
    Compose,
    EnsureChannelFirstd,
    EnsureTyped,
    RandCropByPosNegLabeld,
    RandFlipd,
    RandShiftIntensityd,
    ScaleIntensityRanged,
)
from monai.utils import set_determinism


def phantoms(count, size=96):
    volumes = []
    for index in range(count):
        rng = np.random.default_rng(index)
        grid = np.indices((size, size, size)).astype(np.float32)
        centre, radius = rng.uniform(30, size - 30, 3).reshape(3, 1, 1, 1), rng.uniform(10, 20)
        label = (np.sqrt(((grid - centre) ** 2).sum(0)) < radius).astype(np.uint8)
        image = label * 60.0 + rng.normal(0, 20, label.shape).astype(np.float32)
        volumes.append({"image": image.astype(np.float32), "label": label})
    return volumes


def main():
    logging.basicConfig(stream=sys.stdout, level=logging.INFO)
    set_determinism(seed=0)
    shared = [
        EnsureChannelFirstd(keys=["image", "label"], channel_dim="no_channel"),
        ScaleIntensityRanged(keys=["image"], a_min=-57, a_max=164, b_min=0.0, b_max=1.0, clip=True),
    ]
    train_transforms = Compose(
        [
            *shared,
            RandCropByPosNegLabeld(
                keys=["image", "label"], label_key="label", spatial_size=(64, 64, 64), pos=1, neg=1, num_samples=4,
                image_key="image", image_threshold=0,
            ),
            RandFlipd(keys=["image", "label"], prob=0.5, spatial_axis=0),
            RandShiftIntensityd(keys="image", offsets=0.05, prob=0.5),
            EnsureTyped(keys=["image", "label"]),
        ]
    )  # fmt: skip
    val_transforms = Compose([*shared, EnsureTyped(keys=["image", "label"])])

    volumes = phantoms(10)
    train_ds = CacheDataset(data=volumes[:8], transform=train_transforms, cache_rate=1.0, num_workers=2)
    train_loader = DataLoader(train_ds, batch_size=2, shuffle=True, num_workers=2)
    val_ds = CacheDataset(data=volumes[8:], transform=val_transforms, cache_rate=1.0)
    val_loader = DataLoader(val_ds, batch_size=1)

    device = torch.device("cuda:0" if torch.cuda.is_available() else "cpu")
    model = UNet(
        spatial_dims=3,
        in_channels=1,
        out_channels=2,
        channels=(16, 32, 64, 128),
        strides=(2, 2, 2),
        num_res_units=2,
        norm=Norm.BATCH,
    ).to(device)
    loss_function = DiceCELoss(to_onehot_y=True, softmax=True)
    optimizer = torch.optim.Adam(model.parameters(), 1e-4)
    scaler = torch.amp.GradScaler("cuda")
    dice_metric = DiceMetric(include_background=False, reduction="mean")
    post_pred = Compose([AsDiscrete(argmax=True, to_onehot=2)])
    post_label = Compose([AsDiscrete(to_onehot=2)])

    max_epochs, val_interval, best_metric = 2, 1, -1
    epoch_loss_values, metric_values = [], []
    for epoch in range(max_epochs):
        print("-" * 10)
        print(f"epoch {epoch + 1}/{max_epochs}")
        model.train()
        epoch_loss = 0
        step = 0
        for batch_data in train_loader:
            step += 1
            inputs, labels = batch_data["image"].to(device), batch_data["label"].to(device)
            optimizer.zero_grad()
            with torch.autocast("cuda"):
                outputs = model(inputs)
                loss = loss_function(outputs, labels)
            scaler.scale(loss).backward()
            scaler.step(optimizer)
            scaler.update()
            epoch_loss += loss.item()
            print(f"{step}/{len(train_ds) // train_loader.batch_size}, train_loss: {loss.item():.4f}")
        epoch_loss /= step
        epoch_loss_values.append(epoch_loss)

        if (epoch + 1) % val_interval == 0:
            model.eval()
            with torch.no_grad():
                for val_data in val_loader:
                    val_inputs, val_labels = val_data["image"].to(device), val_data["label"].to(device)
                    with torch.autocast("cuda"):
                        val_outputs = sliding_window_inference(val_inputs, (64, 64, 64), 4, model)
                    val_outputs = [post_pred(i) for i in decollate_batch(val_outputs)]
                    val_labels = [post_label(i) for i in decollate_batch(val_labels)]
                    dice_metric(y_pred=val_outputs, y=val_labels)
                metric = dice_metric.aggregate().item()
                dice_metric.reset()
                metric_values.append(metric)
                if metric > best_metric:
                    best_metric = metric
                    torch.save(model.state_dict(), "best_metric_model.pth")
                    print("saved new best metric model")
    print(f"train completed, best_metric: {best_metric:.4f}")


if __name__ == "__main__":
    main()

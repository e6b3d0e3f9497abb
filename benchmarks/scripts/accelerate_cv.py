"""Image classifier in the style of accelerate's cv_example.py: gather_for_metrics, save_state, trackers, schedulers."""

import argparse

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from torch.optim.lr_scheduler import OneCycleLR
from torch.utils.data import DataLoader, Dataset
from torchvision.models import resnet18
from torchvision.transforms import Compose, RandomResizedCrop, ToTensor


class Pets(Dataset):
    def __init__(self, count, transform):
        rng = np.random.default_rng(0)
        self.images = rng.integers(0, 255, (count, 72, 72, 3), dtype=np.uint8)
        self.labels = rng.integers(0, 5, count)
        self.transform = transform

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        from PIL import Image

        return {"image": self.transform(Image.fromarray(self.images[index])), "label": int(self.labels[index])}


def training_function(config, args):
    accelerator = Accelerator(
        mixed_precision=args.mixed_precision,
        gradient_accumulation_steps=args.gradient_accumulation_steps,
        log_with="tensorboard" if args.with_tracking else None,
        project_dir=args.project_dir,
    )
    set_seed(config["seed"])
    data = Pets(config["batch_size"] * 10, Compose([RandomResizedCrop(64), ToTensor()]))
    train_loader = DataLoader(data, shuffle=True, batch_size=config["batch_size"], num_workers=4)
    eval_loader = DataLoader(data, shuffle=False, batch_size=config["batch_size"], num_workers=4)
    model = resnet18(num_classes=5)
    for param in model.parameters():
        param.requires_grad = False
    for param in model.layer4.parameters():
        param.requires_grad = True
    for param in model.fc.parameters():
        param.requires_grad = True
    mean = torch.tensor([0.485, 0.456, 0.406])[None, :, None, None].to(accelerator.device)
    std = torch.tensor([0.229, 0.224, 0.225])[None, :, None, None].to(accelerator.device)
    optimizer = torch.optim.Adam(params=model.parameters(), lr=config["lr"] / 25)
    scheduler = OneCycleLR(
        optimizer, max_lr=config["lr"], epochs=config["num_epochs"], steps_per_epoch=len(train_loader)
    )
    model, optimizer, train_loader, eval_loader, scheduler = accelerator.prepare(
        model, optimizer, train_loader, eval_loader, scheduler
    )
    for epoch in range(config["num_epochs"]):
        model.train()
        total_loss = 0
        for batch in train_loader:
            with accelerator.accumulate(model):
                inputs = (batch["image"] - mean) / std
                loss = torch.nn.functional.cross_entropy(model(inputs), batch["label"])
                total_loss += loss.detach().float()
                accelerator.backward(loss)
                if accelerator.sync_gradients:
                    accelerator.clip_grad_norm_(model.parameters(), 1.0)
                optimizer.step()
                scheduler.step()
                optimizer.zero_grad()
        model.eval()
        accurate = num_elems = 0
        for batch in eval_loader:
            inputs = (batch["image"] - mean) / std
            with torch.no_grad():
                outputs = model(inputs)
            predictions = outputs.argmax(dim=-1)
            predictions, references = accelerator.gather_for_metrics((predictions, batch["label"]))
            accurate_preds = predictions == references
            num_elems += accurate_preds.shape[0]
            accurate += accurate_preds.long().sum()
        accelerator.print(f"epoch {epoch}: {100 * accurate.item() / num_elems:.2f}")
        accelerator.save_state(f"epoch_{epoch}")
    accelerator.end_training()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--mixed_precision", default=None, choices=["no", "fp16", "bf16"])
    parser.add_argument("--gradient_accumulation_steps", type=int, default=1)
    parser.add_argument("--with_tracking", action="store_true")
    parser.add_argument("--project_dir", default="logs")
    parser.add_argument("--batch_size", type=int, default=16)
    args = parser.parse_args()
    training_function({"lr": 3e-2, "num_epochs": 3, "seed": 42, "batch_size": args.batch_size}, args)


if __name__ == "__main__":
    main()

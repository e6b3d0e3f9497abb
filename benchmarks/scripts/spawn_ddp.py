"""torch.multiprocessing.spawn + DDP, no_sync for accumulation, all-reduced metrics, snapshot by rank 0."""

import argparse
import contextlib
import os

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
import torch.nn as nn
import torch.nn.functional as F
from torch.distributed import destroy_process_group, init_process_group
from torch.nn.parallel import DistributedDataParallel as DDP
from torch.utils.data import DataLoader, Dataset
from torch.utils.data.distributed import DistributedSampler


def ddp_setup(rank, world_size):
    os.environ["MASTER_ADDR"] = "localhost"
    os.environ["MASTER_PORT"] = "12355"
    torch.cuda.set_device(rank)
    init_process_group(backend="nccl", rank=rank, world_size=world_size)


class MelDataset(Dataset):
    def __len__(self):
        return 512

    def __getitem__(self, i):
        return torch.randn(80, 400), i % 35


class ConformerLite(nn.Module):
    def __init__(self, dim=192, layers=4, heads=4, classes=35):
        super().__init__()
        self.sub = nn.Conv1d(80, dim, 3, stride=2, padding=1)
        layer = nn.TransformerEncoderLayer(dim, heads, dim * 4, dropout=0.1, batch_first=True, norm_first=True)
        self.encoder = nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)
        self.dw = nn.Conv1d(dim, dim, 15, padding=7, groups=dim)
        self.head = nn.Linear(dim, classes)

    def forward(self, mel):
        x = F.gelu(self.sub(mel))
        x = x + F.silu(self.dw(x))
        return self.head(self.encoder(x.transpose(1, 2)).mean(1))


class Trainer:
    def __init__(self, model, train_data, optimizer, gpu_id, args):
        self.gpu_id, self.args = gpu_id, args
        self.model = nn.SyncBatchNorm.convert_sync_batchnorm(model.to(gpu_id))
        self.train_data, self.optimizer = train_data, optimizer
        self.model = DDP(self.model, device_ids=[gpu_id], find_unused_parameters=False)

    def _run_batch(self, source, targets, sync):
        ctx = contextlib.nullcontext() if sync else self.model.no_sync()
        with ctx:
            loss = F.cross_entropy(self.model(source), targets) / self.args.accum
            loss.backward()
        if sync:
            self.optimizer.step()
            self.optimizer.zero_grad()
        return loss.detach()

    def _run_epoch(self, epoch):
        b_sz = len(next(iter(self.train_data))[0])
        print(f"[GPU{self.gpu_id}] Epoch {epoch} | Batchsize: {b_sz} | Steps: {len(self.train_data)}")
        self.train_data.sampler.set_epoch(epoch)
        total = torch.zeros(2, device=self.gpu_id)
        for i, (source, targets) in enumerate(self.train_data, 1):
            source, targets = source.to(self.gpu_id), targets.to(self.gpu_id)
            total[0] += self._run_batch(source, targets, i % self.args.accum == 0)
            total[1] += 1
        dist.all_reduce(total, op=dist.ReduceOp.SUM)
        if self.gpu_id == 0:
            print(f"mean loss {total[0].item() / total[1].item():.4f}")

    def _save_checkpoint(self, epoch):
        torch.save(self.model.module.state_dict(), "checkpoint.pt")
        print(f"Epoch {epoch} | Training checkpoint saved at checkpoint.pt")

    def train(self, max_epochs):
        for epoch in range(max_epochs):
            self._run_epoch(epoch)
            if self.gpu_id == 0 and epoch % self.args.save_every == 0:
                self._save_checkpoint(epoch)
            dist.barrier()


def main(rank, world_size, args):
    ddp_setup(rank, world_size)
    dataset = MelDataset()
    model = ConformerLite()
    loader = DataLoader(
        dataset,
        batch_size=args.batch_size,
        pin_memory=True,
        shuffle=False,
        num_workers=2,
        sampler=DistributedSampler(dataset),
    )
    trainer = Trainer(model, loader, torch.optim.AdamW(model.parameters(), lr=1e-3), rank, args)
    trainer.train(args.total_epochs)
    destroy_process_group()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="simple distributed training job")
    parser.add_argument("total_epochs", type=int)
    parser.add_argument("save_every", type=int)
    parser.add_argument("--batch_size", default=16, type=int, help="Input batch size on each device")
    parser.add_argument("--accum", default=2, type=int)
    args = parser.parse_args()
    world_size = torch.cuda.device_count()
    mp.spawn(main, args=(world_size, args), nprocs=world_size)

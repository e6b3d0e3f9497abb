"""Ignite-flavoured: an Engine with events and handlers, YAML-less config dict, super-resolution with pixel shuffle."""

import collections
import enum
import logging
import sys
from argparse import ArgumentParser
from pathlib import Path

import torch
import torch.nn as nn
import torch.nn.init as init
import torch.optim as optim
from torch.utils.data import DataLoader, Dataset, random_split

logging.basicConfig(stream=sys.stdout, level=logging.INFO)


class Events(enum.Enum):
    STARTED = 1
    EPOCH_STARTED = 2
    ITERATION_COMPLETED = 3
    EPOCH_COMPLETED = 4
    COMPLETED = 5
    EXCEPTION_RAISED = 6


class State:
    def __init__(self, **kw):
        self.epoch = self.iteration = 0
        self.output = self.batch = None
        self.metrics = {}
        self.__dict__.update(kw)


class Engine:
    def __init__(self, process_function):
        self._process = process_function
        self._handlers = collections.defaultdict(list)
        self.should_terminate = False
        self.state = State()

    def on(self, event, every=1):
        def decorator(f):
            self._handlers[event].append((every, f))
            return f

        return decorator

    def _fire(self, event):
        number = self.state.iteration if event is Events.ITERATION_COMPLETED else self.state.epoch
        for every, f in self._handlers[event]:
            if number % every == 0:
                f(self)

    def run(self, data, max_epochs=1):
        self.state = State(dataloader=data, max_epochs=max_epochs)
        try:
            self._fire(Events.STARTED)
            while self.state.epoch < max_epochs and not self.should_terminate:
                self.state.epoch += 1
                self._fire(Events.EPOCH_STARTED)
                for self.state.batch in data:
                    self.state.iteration += 1
                    self.state.output = self._process(self, self.state.batch)
                    self._fire(Events.ITERATION_COMPLETED)
                    if self.should_terminate:
                        break
                self._fire(Events.EPOCH_COMPLETED)
            self._fire(Events.COMPLETED)
        except BaseException:
            logging.exception("engine run is terminating")
            raise
        return self.state


class Net(nn.Module):
    def __init__(self, upscale_factor):
        super().__init__()
        self.relu = nn.ReLU()
        self.conv1 = nn.Conv2d(1, 64, (5, 5), (1, 1), (2, 2))
        self.conv2 = nn.Conv2d(64, 64, (3, 3), (1, 1), (1, 1))
        self.conv3 = nn.Conv2d(64, 32, (3, 3), (1, 1), (1, 1))
        self.conv4 = nn.Conv2d(32, upscale_factor**2, (3, 3), (1, 1), (1, 1))
        self.pixel_shuffle = nn.PixelShuffle(upscale_factor)
        init.orthogonal_(self.conv1.weight, init.calculate_gain("relu"))
        init.orthogonal_(self.conv2.weight, init.calculate_gain("relu"))
        init.orthogonal_(self.conv3.weight, init.calculate_gain("relu"))
        init.orthogonal_(self.conv4.weight)

    def forward(self, x):
        x = self.relu(self.conv1(x))
        x = self.relu(self.conv2(x))
        x = self.relu(self.conv3(x))
        return self.pixel_shuffle(self.conv4(x))


class Patches(Dataset):
    def __init__(self, n, crop, factor):
        self.n, self.crop, self.factor = n, crop, factor

    def __len__(self):
        return self.n

    def __getitem__(self, i):
        target = torch.rand(1, self.crop, self.crop)
        return nn.functional.avg_pool2d(target, self.factor), target


def get_parser():
    parser = ArgumentParser(description="PyTorch Super Res Example")
    parser.add_argument("--upscale_factor", type=int, default=3)
    parser.add_argument("--batchSize", type=int, default=16, help="training batch size")
    parser.add_argument("--testBatchSize", type=int, default=10)
    parser.add_argument("--nEpochs", type=int, default=5)
    parser.add_argument("--lr", type=float, default=0.01)
    parser.add_argument("--cuda", action="store_true", help="use cuda?")
    parser.add_argument("--threads", type=int, default=4)
    parser.add_argument("--seed", type=int, default=123)
    return parser


def main(opt):
    if opt.cuda and not torch.cuda.is_available():
        raise Exception("No GPU found, please run without --cuda")
    torch.manual_seed(opt.seed)
    device = torch.device("cuda" if opt.cuda else "cpu")
    full = Patches(300, 255, opt.upscale_factor)
    train_set, test_set = random_split(full, [250, 50])
    training = DataLoader(train_set, num_workers=opt.threads, batch_size=opt.batchSize, shuffle=True)
    testing = DataLoader(test_set, num_workers=opt.threads, batch_size=opt.testBatchSize)
    model = Net(opt.upscale_factor).to(device)
    criterion = nn.MSELoss()
    optimizer = optim.Adam(model.parameters(), lr=opt.lr)

    def update(engine, batch):
        model.train()
        input, target = batch[0].to(device), batch[1].to(device)
        optimizer.zero_grad()
        loss = criterion(model(input), target)
        loss.backward()
        optimizer.step()
        return loss.item()

    def infer(engine, batch):
        model.eval()
        with torch.no_grad():
            mse = criterion(model(batch[0].to(device)), batch[1].to(device))
        engine.state.metrics.setdefault("psnr", []).append(10 * torch.log10(1 / mse).item())

    trainer, evaluator = Engine(update), Engine(infer)

    @trainer.on(Events.ITERATION_COMPLETED, every=5)
    def log(engine):
        logging.info("epoch %d iter %d loss %.5f", engine.state.epoch, engine.state.iteration, engine.state.output)

    @trainer.on(Events.EPOCH_COMPLETED)
    def validate(engine):
        psnr = evaluator.run(testing).metrics["psnr"]
        logging.info("avg PSNR %.4f dB", sum(psnr) / len(psnr))

    @trainer.on(Events.EPOCH_COMPLETED)
    def checkpoint(engine):
        out = Path("models") / f"model_epoch_{engine.state.epoch}.pth"
        out.parent.mkdir(exist_ok=True)
        torch.save(model, out)

    trainer.run(training, opt.nEpochs)


if __name__ == "__main__":
    main(get_parser().parse_args())

import cv2
import numpy as np
import torch
from torch.utils.data import Dataset

from .registry import DATASETS


@DATASETS.register_module
class Shapes(Dataset):
    def __init__(self, size, length, test_mode=False):
        self.size, self.length, self.test_mode = size, length, test_mode

    def __len__(self):
        return self.length

    def __getitem__(self, idx):
        rng = np.random.default_rng(idx)
        img = rng.integers(0, 255, (self.size, self.size, 3)).astype(np.uint8)
        gt = np.zeros((self.size, self.size), np.uint8)
        for c in range(1, 5):
            x, y = (int(v) for v in rng.integers(10, self.size - 10, 2))
            cv2.circle(gt, (x, y), 12, c, -1)
        gt[:2] = 255
        img = cv2.GaussianBlur(img, (3, 3), 0)
        return dict(img=torch.from_numpy(img.transpose(2, 0, 1)).float().div(255), gt=torch.from_numpy(gt).long())

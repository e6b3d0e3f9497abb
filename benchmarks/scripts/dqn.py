# Deep Q-learning with a replay buffer on a tiny grid world with image observations
import argparse
import random
from collections import deque, namedtuple
from itertools import count

import numpy as np
import torch
import torch.nn as nn
import torch.optim as optim

device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
Transition = namedtuple("Transition", ("state", "action", "next_state", "reward"))


class GridWorld:
    """84x84 observations, 4 stacked frames, 6 actions."""

    def __init__(self, size=84, seed=0):
        self.size, self.rng = size, np.random.default_rng(seed)
        self.n_actions = 6

    def _obs(self):
        frame = np.zeros((self.size, self.size), np.uint8)
        frame[self.y : self.y + 8, self.x : self.x + 8] = 255
        self.frames.append(frame)
        return np.stack(self.frames)

    def reset(self):
        self.x = self.y = 38
        self.t = 0
        self.frames = deque([np.zeros((self.size, self.size), np.uint8)] * 4, maxlen=4)
        return self._obs()

    def step(self, action):
        dx, dy = [(0, 0), (0, 0), (4, 0), (-4, 0), (0, 4), (0, -4)][action]
        self.x = int(np.clip(self.x + dx, 0, 76))
        self.y = int(np.clip(self.y + dy, 0, 76))
        self.t += 1
        return self._obs(), float(self.x > 70), self.x > 70 or self.t > 60


class ReplayMemory(object):
    def __init__(self, capacity):
        self.memory = deque([], maxlen=capacity)

    def push(self, *args):
        self.memory.append(Transition(*args))

    def sample(self, batch_size):
        return random.sample(self.memory, batch_size)

    def __len__(self):
        return len(self.memory)


class DQN(nn.Module):
    def __init__(self, n_actions):
        super().__init__()
        self.net = nn.Sequential(
            nn.Conv2d(4, 32, 8, stride=4),
            nn.ReLU(),
            nn.Conv2d(32, 64, 4, stride=2),
            nn.ReLU(),
            nn.Conv2d(64, 64, 3),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(3136, 512),
            nn.ReLU(),
            nn.Linear(512, n_actions),
        )

    def forward(self, x):
        return self.net(x.float() / 255.0)


parser = argparse.ArgumentParser()
parser.add_argument("--batch-size", type=int, default=128)
parser.add_argument("--gamma", type=float, default=0.99)
parser.add_argument("--eps-start", type=float, default=0.9)
parser.add_argument("--eps-end", type=float, default=0.05)
parser.add_argument("--eps-decay", type=int, default=1000)
parser.add_argument("--tau", type=float, default=0.005)
parser.add_argument("--lr", type=float, default=1e-4)
parser.add_argument("--learning-starts", type=int, default=300)
parser.add_argument("--episodes", type=int, default=600)
args = parser.parse_args()

env = GridWorld()
policy_net = DQN(env.n_actions).to(device)
target_net = DQN(env.n_actions).to(device)
target_net.load_state_dict(policy_net.state_dict())
optimizer = optim.AdamW(policy_net.parameters(), lr=args.lr, amsgrad=True)
memory = ReplayMemory(10000)
steps_done = 0


def select_action(state):
    global steps_done
    eps = args.eps_end + (args.eps_start - args.eps_end) * np.exp(-1.0 * steps_done / args.eps_decay)
    steps_done += 1
    if random.random() > eps:
        with torch.no_grad():
            return policy_net(state).max(1).indices.view(1, 1)
    return torch.tensor([[random.randrange(env.n_actions)]], device=device, dtype=torch.long)


def optimize_model():
    if len(memory) < max(args.batch_size, args.learning_starts):
        return None
    batch = Transition(*zip(*memory.sample(args.batch_size)))
    non_final_mask = torch.tensor(tuple(s is not None for s in batch.next_state), device=device, dtype=torch.bool)
    non_final_next_states = torch.cat([s for s in batch.next_state if s is not None])
    state_batch = torch.cat(batch.state)
    action_batch = torch.cat(batch.action)
    reward_batch = torch.cat(batch.reward)
    q = policy_net(state_batch).gather(1, action_batch)
    next_values = torch.zeros(args.batch_size, device=device)
    with torch.no_grad():
        next_values[non_final_mask] = target_net(non_final_next_states).max(1).values
    expected = next_values * args.gamma + reward_batch
    loss = nn.SmoothL1Loss()(q, expected.unsqueeze(1))
    optimizer.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_value_(policy_net.parameters(), 100)
    optimizer.step()
    return loss.item()


durations = []
for i_episode in range(args.episodes):
    state = torch.tensor(env.reset(), device=device).unsqueeze(0)
    for t in count():
        action = select_action(state)
        obs, reward, done = env.step(action.item())
        reward = torch.tensor([reward], device=device)
        next_state = None if done else torch.tensor(obs, device=device).unsqueeze(0)
        memory.push(state, action, next_state, reward)
        state = next_state
        loss = optimize_model()
        target_sd, policy_sd = target_net.state_dict(), policy_net.state_dict()
        for key in policy_sd:
            target_sd[key] = policy_sd[key] * args.tau + target_sd[key] * (1 - args.tau)
        target_net.load_state_dict(target_sd)
        if done:
            durations.append(t + 1)
            print(f"episode {i_episode} length {t + 1} loss {loss}")
            break
print("Complete", np.mean(durations[-100:]))

from __future__ import print_function
import os, sys, time, math, random, argparse
import torch
import torch.nn as nn
from torch.autograd import Variable

# char-rnn in the style of 2017
parser = argparse.ArgumentParser()
parser.add_argument("filename", type=str, nargs="?", default="input.txt")
parser.add_argument("--model", type=str, default="gru")
parser.add_argument("--n_epochs", type=int, default=2000)
parser.add_argument("--print_every", type=int, default=1)
parser.add_argument("--hidden_size", type=int, default=256)
parser.add_argument("--n_layers", type=int, default=2)
parser.add_argument("--learning_rate", type=float, default=0.01)
parser.add_argument("--chunk_len", type=int, default=100)
parser.add_argument("--batch_size", type=int, default=50)
parser.add_argument("--shuffle", action="store_true")
parser.add_argument("--no-cuda", dest="cuda", action="store_false", default=True)
args = parser.parse_args()

if args.cuda and not torch.cuda.is_available():
    print("WARNING: no CUDA device")
    sys.exit(1)
torch.cuda.manual_seed(1)
FloatTensor = torch.cuda.FloatTensor if args.cuda else torch.FloatTensor
LongTensor = torch.cuda.LongTensor if args.cuda else torch.LongTensor

if not os.path.exists(args.filename):
    with open(args.filename, "w") as f:
        f.write(" ".join(random.choice(["the", "cat", "sat", "on", "a", "mat", "quietly.\n"]) for _ in range(4000)))
file = open(args.filename).read()
all_characters = sorted(set(file))
n_characters = len(all_characters)
file_len = len(file)
print("file_len =", file_len, "n_characters =", n_characters)


class CharRNN(nn.Module):
    def __init__(self, input_size, hidden_size, output_size, model="gru", n_layers=1):
        super(CharRNN, self).__init__()
        self.model = model.lower()
        self.hidden_size, self.n_layers = hidden_size, n_layers
        self.encoder = nn.Embedding(input_size, hidden_size)
        self.rnn = (nn.GRU if self.model == "gru" else nn.LSTM)(hidden_size, hidden_size, n_layers)
        self.decoder = nn.Linear(hidden_size, output_size)

    def forward(self, input, hidden):
        batch_size = input.size(0)
        encoded = self.encoder(input)
        output, hidden = self.rnn(encoded.view(1, batch_size, -1), hidden)
        output = self.decoder(output.view(batch_size, -1))
        return output, hidden

    def init_hidden(self, batch_size):
        if self.model == "lstm":
            return (
                Variable(FloatTensor(self.n_layers, batch_size, self.hidden_size).zero_()),
                Variable(FloatTensor(self.n_layers, batch_size, self.hidden_size).zero_()),
            )
        return Variable(FloatTensor(self.n_layers, batch_size, self.hidden_size).zero_())


def char_tensor(string):
    return LongTensor([all_characters.index(c) for c in string])


def random_training_set(chunk_len, batch_size):
    inp = LongTensor(batch_size, chunk_len)
    target = LongTensor(batch_size, chunk_len)
    for bi in range(batch_size):
        start_index = random.randint(0, file_len - chunk_len - 1)
        chunk = file[start_index : start_index + chunk_len + 1]
        inp[bi] = char_tensor(chunk[:-1])
        target[bi] = char_tensor(chunk[1:])
    return Variable(inp), Variable(target)


def train(inp, target):
    hidden = decoder.init_hidden(args.batch_size)
    decoder.zero_grad()
    loss = 0
    for c in range(args.chunk_len):
        output, hidden = decoder(inp[:, c], hidden)
        loss += criterion(output.view(args.batch_size, -1), target[:, c])
    loss.backward()
    decoder_optimizer.step()
    return loss.data.item() / args.chunk_len


def generate(prime="A", predict_len=20, temperature=0.8):
    hidden = decoder.init_hidden(1)
    inp = Variable(char_tensor(prime).unsqueeze(0))
    predicted = prime
    with torch.no_grad():
        for p in range(predict_len):
            output, hidden = decoder(inp[:, -1], hidden)
            output_dist = output.data.view(-1).div(temperature).exp()
            top_i = torch.multinomial(output_dist, 1)[0]
            predicted += all_characters[top_i]
            inp = Variable(char_tensor(all_characters[top_i]).unsqueeze(0))
    return predicted


def save():
    save_filename = os.path.splitext(os.path.basename(args.filename))[0] + ".pt"
    torch.save(decoder, save_filename)
    print("Saved as %s" % save_filename)


decoder = CharRNN(n_characters, args.hidden_size, n_characters, model=args.model, n_layers=args.n_layers)
decoder_optimizer = torch.optim.Adam(decoder.parameters(), lr=args.learning_rate)
criterion = nn.CrossEntropyLoss()
if args.cuda:
    decoder.cuda()
start, loss_avg = time.time(), 0
try:
    print("Training for %d epochs..." % args.n_epochs)
    for epoch in range(1, args.n_epochs + 1):
        loss = train(*random_training_set(args.chunk_len, args.batch_size))
        loss_avg += loss
        if epoch % args.print_every == 0:
            print("[%s (%d %d%%) %.4f]" % (time.time() - start, epoch, epoch / args.n_epochs * 100, loss))
            print(generate("a", 20), "\n")
    print("Saving...")
    save()
except KeyboardInterrupt:
    print("Saving before quit...")
    save()

"""A program like a server's engine: threads that launch work until the end, and tensors that outlive everything."""

import atexit
import threading
import time

import torch

kept = [torch.ones(4, device="chip") for _ in range(3)]
stream, event = torch.Stream(device="chip"), torch.Event("chip")
pinned = torch.ones(8).pin_memory()
kept.append(torch.ones(2, 2, device="chip", requires_grad=True))
(kept[-1] @ kept[-1]).sum().backward()


class Engine:
    def __init__(self):
        self.tensor = torch.zeros(1000, device="chip")
        self.cycle = self
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    def run(self):
        while True:
            self.tensor = self.tensor + 1
            self.host = self.tensor.cpu()


engine = Engine()
atexit.register(lambda: kept[0].add_(1).tolist())
event.record(stream)
time.sleep(0.5)
print("done")

"""LitServe: a server whose worker holds the model on the device, asked over HTTP."""

import sys

import litserve
import torch
from fastapi.testclient import TestClient
from litserve.utils import wrap_litserve_start

DEVICE = sys.argv[1]


class Doubler(litserve.LitAPI):
    def setup(self, device):
        torch.manual_seed(1)
        self.model = torch.nn.Linear(4, 3).to(DEVICE)

    def decode_request(self, request):
        return torch.tensor(request["input"]).to(DEVICE)

    def predict(self, x):
        with torch.no_grad():
            return self.model(x)

    def encode_response(self, output):
        return {"output": output.tolist(), "device": output.device.type}


if __name__ == "__main__":
    server = litserve.LitServer(Doubler(), accelerator="cpu", devices=1, track_requests=False)
    with wrap_litserve_start(server), TestClient(server.app) as client:
        for place in range(3):
            answer = client.post("/predict", json={"input": [float(place), 1.0, -2.0, 0.5]}).json()
            for value in answer["output"]:
                print("output", value)
            print("device", answer["device"])

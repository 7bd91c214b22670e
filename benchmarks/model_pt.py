"""A library's PyTorch models, in what a benchmark has them do. Peers' interpreters import this without isobert."""

from __future__ import annotations

from collections.abc import Callable, Collection
from copy import deepcopy
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from measured import INT8, dtype_of
from runner import peak_memory

# How a side whose name has this word is compiled.
MODES = {"compiled": None, "graphs": "reduce-overhead"}

# How many texts `quantize` sees the ranges of.
SEEN = 16

# A model is compiled anew for each shape; past PyTorch's limit it would run without.
SHAPES = 64

Call = Callable[[], Any]


class PyTorch:
    """A library's models in PyTorch.

    A side's words say how: "optimized" (`isobert.pt.optimize`), "compiled" (`torch.compile`), "graphs" (the same with
    CUDA graphs), and a dtype. "int8" is `isobert.pt.quantize`, and of transformers' models what torchao makes of them.

    Args:
        library: "isobert" or "transformers".
        threads: that it computes with.
        device: "cpu" or "cuda".

    Attributes:
        versions: of the libraries.
    """

    def __init__(self, library: str, threads: int, device: str = "cpu") -> None:
        import torch

        torch.set_num_threads(threads)
        torch._dynamo.config.recompile_limit = SHAPES
        self.torch = torch
        self.library = library
        self.device = device
        self.versions = {name: version(name) for name in (library, "torch")}
        self.opened: dict[tuple[str, str], Any] = {}

    def read(self, folder: Path, head: str, dtype: str) -> Any:
        """Return a new model from a checkpoint."""
        found = getattr(import_module(self.library), f"AutoModel{head.removeprefix('Model')}")
        return found.from_pretrained(folder, dtype=dtype).eval().to(self.device)

    def open(self, folder: Path, head: str, words: Collection[str]) -> Any:
        """Return the model of a checkpoint for one side; what several sides need is opened once."""
        dtype = dtype_of(words)
        dtype = "float32" if dtype == INT8 else dtype
        if (head, dtype) not in self.opened:
            self.opened[head, dtype] = self.read(folder, head, dtype)
        model = self.opened[head, dtype]
        if "optimized" in words:
            from isobert.pt import optimize

            model = optimize(model)
        return model

    def compiled(self, call: Call, words: Collection[str]) -> Call:
        mode = next((word for word in words if word in MODES), None)
        return call if mode is None else self.torch.compile(call, mode=MODES[mode], dynamic=False)

    def tensors(self, inputs: dict[str, np.ndarray]) -> dict[str, Any]:
        return {name: self.torch.from_numpy(array).to(self.device) for name, array in inputs.items()}

    def forward(self, folder: Path, words: Collection[str], inputs: dict[str, np.ndarray]) -> Call:
        """Return a call of the bare encoder, without gradients."""
        model = self.open(folder, "Model", words)
        if INT8 in words:
            model = self.quantized(model, inputs)
        return self._without_gradients(model, words, inputs)

    def quantized(self, model: Any, inputs: dict[str, np.ndarray]) -> Any:
        """Return a model in 8-bit integers; ours sees its ranges on other texts of the same words."""
        if self.library == "isobert":
            from isobert.pt import quantize

            ids = inputs["input_ids"]
            texts = np.random.default_rng(0).choice(ids.ravel(), (SEEN, ids.shape[1]))
            return quantize(model, [{"input_ids": self.torch.from_numpy(texts)}])
        quantization = import_module("torchao.quantization")
        self.versions["torchao"] = version("torchao")
        model = deepcopy(model)
        quantization.quantize_(model, quantization.Int8DynamicActivationInt8WeightConfig())
        return model

    def _without_gradients(self, model: Any, words: Collection[str], inputs: dict[str, np.ndarray]) -> Call:
        compiled, tensors = self.compiled(model, words), self.tensors(inputs)

        def call() -> Any:
            with self.torch.no_grad():
                return compiled(**tensors)[0]

        return call

    def products(self, folder: Path, words: Collection[str], inputs: dict[str, np.ndarray]) -> Call:
        """Return a call of the layers' dense maps alone, one after the other: no forward pass can take less."""
        from isobert.pt.optimized.steps import steps_for

        torch, model, rows = self.torch, self.open(folder, "Model", words), inputs["input_ids"].size
        named = model.encoder.named_parameters()
        weights = [p for name, p in named if name.endswith("weight") and p.dim() == 2]
        values = {width: torch.randn(1, rows, width) for width in {weight.shape[1] for weight in weights}}
        maps = [(values[weight.shape[1]], weight, torch.zeros(weight.shape[0])) for weight in weights]
        steps = steps_for(*maps[0][:2])

        def call() -> None:
            with torch.no_grad():
                for one in maps:
                    steps.mapped(*one, "linear")

        return call

    def training_step(self, folder: Path, words: Collection[str], inputs: dict[str, np.ndarray], head: str) -> Call:
        """Return a call of a whole step: forward, backward, and AdamW in one kernel, without clipping.

        Its first result is the loss in evaluation mode, before any step: there all sides are equal.
        """
        torch = self.torch
        # A step changes the weights, so each side has its own. They are in float32 whatever a step computes in.
        model = self.read(folder, head, "float32")
        tensors = self.tensors(inputs)
        with torch.no_grad():
            first: list[Any] = [model(**tensors).loss]
        model.train()
        compiled = self.compiled(model, words)
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5, weight_decay=0.01, fused=True)
        dtype = dtype_of(words)

        def call() -> Any:
            if first:
                return first.pop()
            with torch.autocast(self.device, torch.bfloat16, enabled=dtype == "bfloat16"):
                loss = compiled(**tensors).loss
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            return loss.detach()

        return call

    def generating(self, folder: Path, words: Collection[str], inputs: dict[str, np.ndarray], new: int) -> Call:
        """Return a call that goes on from prompts by a number of words, the likeliest at each step."""
        model = self.open(folder, "ModelForCausalLM", words)
        tensors = self.tensors(inputs)
        return lambda: model.generate(**tensors, max_new_tokens=new, min_new_tokens=new, do_sample=False)

    def saving(self, folder: Path, words: Collection[str], target: Path) -> Call:
        """Return a call that writes a checkpoint over the last one."""
        model = self.open(folder, "Model", words)
        return lambda: model.save_pretrained(target)

    def part(self, folder: Path, words: Collection[str], name: str, batch: int, length: int) -> Call:
        """Return a call of one module of the encoder alone, on a random stream `[batch, length, hidden]`."""
        model = self.open(folder, "Model", words)
        self.torch.manual_seed(0)
        stream = self.torch.randn(batch, length, model.config.hidden_size, device=self.device)
        module = model.get_submodule(name)

        def call() -> Any:
            with self.torch.no_grad():
                return module(stream)[0]

        return call

    def yardstick(self, inputs: dict[str, np.ndarray], words: Collection[str]) -> Call:
        """Return a call of transformers' BERT-base with new weights."""
        transformers = import_module("transformers")
        model = transformers.BertModel(transformers.BertConfig()).eval().to(self.device)
        ids = inputs["input_ids"] % model.config.vocab_size
        return self._without_gradients(model, words, {**inputs, "input_ids": ids})

    def finish(self, result: Any) -> None:
        """Wait until a call's result is there."""
        if self.device != "cpu":
            self.torch.cuda.synchronize()

    def numbers(self, result: Any) -> np.ndarray:
        """Return a call's result for NumPy, which has no bfloat16."""
        found: np.ndarray = (result.float() if result.is_floating_point() else result).cpu().numpy()
        return found

    def memory(self, call: Call) -> int | None:
        """Return what a call needs at its peak beyond what was held before it."""
        if self.device == "cpu":
            return peak_memory(call)
        call()
        self.torch.cuda.synchronize()
        self.torch.cuda.reset_peak_memory_stats()
        before = self.torch.cuda.memory_allocated()
        call()
        self.torch.cuda.synchronize()
        return int(self.torch.cuda.max_memory_allocated() - before)


class OnnxRuntime(PyTorch):
    """transformers' PyTorch model as ONNX Runtime runs it on the CPU: in float32, or in integers ("int8")."""

    def __init__(self, library: str, threads: int, device: str = "cpu") -> None:
        super().__init__(library, threads, device)
        self.threads = threads
        self.versions |= {name: version(name) for name in ("onnx", "onnxruntime")}

    def forward(self, folder: Path, words: Collection[str], inputs: dict[str, np.ndarray]) -> Call:
        """Export the model for inputs of this shape, and return a call of what was exported."""
        import onnxruntime

        model = self.open(folder, "Model", words)
        model.config.return_dict = False
        path = folder / "onnx" / ("x".join(map(str, inputs["input_ids"].shape)) + ".onnx")
        path.parent.mkdir(exist_ok=True)
        tensors = self.tensors(inputs)
        self.torch.onnx.export(model, kwargs=tensors, f=path, input_names=list(tensors), dynamo=True, verbose=False)
        if INT8 in words:
            path = self.in_integers(path)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = self.threads
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        wanted = {one.name for one in session.get_inputs()}
        given = {name: array for name, array in inputs.items() if name in wanted}
        return lambda: session.run(None, given)[0]

    def in_integers(self, path: Path) -> Path:
        """Write an exported model once more with integer products, whose values' ranges are seen in each call."""
        import onnx
        from onnxruntime.quantization import QuantType, quantize_dynamic

        plain, quantized = path.with_suffix(".plain.onnx"), path.with_suffix(".int8.onnx")
        model = onnx.load(path)
        # The shapes that the export noted down stand in the way of ONNX Runtime's own inference of them.
        del model.graph.value_info[:]
        onnx.save(model, plain)
        quantize_dynamic(
            plain,
            quantized,
            weight_type=QuantType.QInt8,
            per_channel=True,
            op_types_to_quantize=["MatMul", "Gemm"],
            extra_options={"MatMulConstBOnly": True},
        )
        return quantized

    def numbers(self, result: Any) -> np.ndarray:
        return np.asarray(result)

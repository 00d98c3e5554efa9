"""The stages of quantize(), each computed or resumed from the run directory."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, TypeVar

import onnx
import onnxruntime
import torch

import zeroq.devices as devices
from zeroq.candidates import METHOD, Candidates, Images, accompanied
from zeroq.compensation import left_over
from zeroq.deploy import Verification, export_onnx, verify
from zeroq.deploy.model_file import FORMAT, load_network, serialise
from zeroq.distillation import distill, distill_several, guide_of
from zeroq.fastest import choose_fastest, weights_to_time
from zeroq.final_network import final_network, placement_with
from zeroq.graph import Inputs, as_inputs, as_tuple, count_images, slice_images
from zeroq.graph.text import graph_to_data
from zeroq.latency import time_file
from zeroq.memory import UNLIMITED, Amounts
from zeroq.models.fingerprint import fingerprint_of
from zeroq.models.several import image_names, preprocess_dict
from zeroq.numbers.values import BitSetting, SensitivityTable
from zeroq.options import BOUNDS, SENSITIVITIES, TARGETS
from zeroq.precision import DTYPES, Precision, choose_precision, passes_in_bf16
from zeroq.preparation import Prepared, metadata_of
from zeroq.ranks import ALONE, Ranks
from zeroq.rehearsal import bytes_beside_weights
from zeroq.run_directory import RunDirectory
from zeroq.selection import Selection, select
from zeroq.sensitivity import Quantized, derivable, measure_sensitivity, measuring_costs, shortenable
from zeroq.setting import weight_widths
from zeroq.simulate import QuantizedNetwork
from zeroq.stored import fingerprint, sensitivity_from_json, sensitivity_to_json
from zeroq.version import __version__

MEASURES = dict(zip(SENSITIVITIES, ("nearest", "gptq"), strict=True))  # the rounding under which each is measured
DEFAULT_MEASURE = "rounded"
S = TypeVar("S")
T = TypeVar("T")
FILES = {"model": "model.safetensors", "onnx": "model.onnx", "images": "distilled.safetensors"}


@dataclass
class Stages:
    """One run's stages; call them in the order of pipeline.quantize_model.

    run: the directory, which of several processes the leading one alone has open.  ranks: those processes.
    device: that computes. What goes to files and comes from them, and so what stages give, is on the CPU.
    """

    run: RunDirectory
    prepared: Prepared
    on_progress: Callable[[str, int, int], None]
    amounts: Amounts = UNLIMITED  # that are computed at a time
    ranks: Ranks = ALONE
    device: torch.device = devices.CPU
    computing: Prepared = field(init=False)  # the same as prepared, on the device

    def __post_init__(self) -> None:
        self.computing = self.prepared.to(self.device)

    def step(self, stage: str) -> Callable[[int, int], None]:
        """Progress of one stage."""
        return lambda done, total: self.on_progress(stage, done, total)

    def stage(
        self, name: str, key: Mapping[str, Any], files: Sequence[str], *,
        compute: Callable[[], S], save: Callable[[S], None], load: Callable[[], T],
    ) -> T:  # fmt: skip
        """The value of a stage of RunDirectory, told to all processes; what is not there yet, they compute together."""
        return self.ranks.led(
            lambda compute: self.run.stage(name, key, files, compute=compute, save=save, load=load), compute
        )

    def at(self, setting: BitSetting) -> Stages:
        """With the inputs' bits of a setting."""
        return replace(self, prepared=self.prepared.at(setting)) if setting.inputs else self

    def distil(self) -> Images:
        """Distilled images, or the user's own pictures of --calibration."""
        options, prepared = self.prepared.options, self.prepared
        effort = prepared.effort
        if (pictures := prepared.pictures) is not None:
            kept = self.stored_images({"pictures": fingerprint(pictures)}, lambda: pictures)
            return Images(kept, "calibration", most_rounded=effort.rounded)
        count = effort.images if options.images is None else options.images
        iterations = effort.iterations if options.iterations is None else options.iterations
        precision = self.precision()
        guides = {"batchnorm"} if prepared.model.example is not None else {"batchnorm", "attention"}
        source = "distilled" if iterations and guide_of(prepared.network) in guides else "neither"

        def compute() -> Inputs:
            own = self.computing
            how: dict[str, Any] = {
                "count": count, "iterations": iterations, "seed": options.seed, "precision": precision,
                "trust": own.trust, "batch_bytes": self.amounts.batch_bytes, "ranks": self.ranks,
                "on_step": self.step("distill"),
            }  # fmt: skip
            if prepared.model.example is None:
                return distill(own.network, prepared.statistics[0], **how).cpu()
            found = distill_several(own.network, prepared.statistics, **how)
            return as_inputs([images.cpu() for images in found])

        statistics = [asdict(statistic) for statistic in prepared.statistics]
        key = {"count": count, "iterations": iterations, "seed": options.seed, "statistics": statistics}
        images = Images(self.stored_images(key, compute), source, most_rounded=effort.rounded)
        return accompanied(images, prepared, options.seed)

    def stored_images(self, key: Mapping[str, Any], compute: Callable[[], Inputs]) -> Inputs:
        """Images, in the run directory unless --no-keep-images says otherwise."""
        name = FILES["images"]
        names = image_names(self.prepared.network.example, self.prepared.model.preprocessing)
        return self.stage(
            "distill", {**self.origin(), **key}, [name] if self.prepared.options.keep_images else [], compute=compute,
            save=lambda images: self.run.write_tensors(
                name, {key: value.contiguous() for key, value in zip(names, as_tuple(images), strict=True)}
            ),
            load=lambda: as_inputs([self.run.read_tensors(name)[key] for key in names]),
        )  # fmt: skip

    def origin(self) -> dict[str, Any]:
        """What every stage depends on; later keys contain the earlier ones."""
        model, options = self.prepared.model, self.prepared.options
        return {
            "version": __version__,
            "torch": torch.__version__,
            "weights": model.weights_sha256,
            "graph": graph_to_data(self.prepared.network.graph),  # the same weights may stand in another network
            "input_shape": model.shapes,
            "preprocess": preprocess_dict(model.preprocessing),
            "device": self.device.type,
            **({} if self.device.type != "cuda" else {"device_name": devices.name_of(self.device)}),
            "threads": options.threads,
        }

    def precision(self) -> Precision:
        """The fastest for distillation, measured once and kept."""

        def measure() -> dict[str, Any]:
            best, seconds = choose_precision(
                self.computing.network, self.prepared.options.precision, self.amounts.probed
            )
            self.run.seconds |= {f"step {name}": round(value, 4) for name, value in seconds.items()}
            return {"dtype": best.name, "layout": best.layout}

        decided = self.decided("precision", measure)
        return Precision(DTYPES[decided["dtype"]], decided["layout"] == "channels-last")

    def shortens(self) -> bool:
        """Whether what bf16 is exact enough for is measured in it, found once and kept."""
        folded, asked = self.computing.folded, self.prepared.options.precision
        return bool(self.decided("sensitivity_in_bf16", lambda: passes_in_bf16(folded, asked, self.amounts.widened)))

    def decided(self, name: str, measure: Callable[[], Any]) -> Any:
        """What was measured under a --precision, once, and kept."""
        key = {**self.origin(), "asked": self.prepared.options.precision}
        return self.ranks.led(lambda _: self.run.decide(name, key, measure))

    def sensitivity(self, candidates: Candidates) -> SensitivityTable | None:
        """Sensitivities of the layers that have a choice; None where none has."""
        prepared, plan = self.computing, self.prepared.plan
        measure = prepared.options.sensitivity or DEFAULT_MEASURE
        open_layers = [layer.name for layer in plan.layers if len(plan.widths[layer.name]) > 1]
        widths, costs = prepared.options.candidate_widths, measuring_costs(prepared.folded.layers)
        # The paper's own are measured as it does; of a user's divergence nobody knows how it grows.
        derives = measure == DEFAULT_MEASURE and prepared.meaning.divergence is None
        multiplied = sum(costs[name] for name in open_layers) * (count_images(candidates.judges) if open_layers else 0)
        narrow = shortenable(widths, multiplied) if derives else ()
        coarse = narrow if narrow and self.shortens() else ()

        def compute() -> SensitivityTable | None:
            def measured(
                names: list[str], widths: Sequence[int], quantized: Quantized, stage: str, coarse: Sequence[int] = ()
            ) -> SensitivityTable:
                own = measure_sensitivity(
                    prepared.folded, candidates.judges, widths, quantized, coarse=coarse,
                    derived=derivable(widths) if derives else (), measure=measure, meaning=prepared.meaning,
                    layers=self.ranks.fair({name: costs[name] for name in names}), reference=candidates.reference,
                    chunk=self.amounts.widened, on_step=self.step(stage),
                )  # fmt: skip
                found = self.ranks.merged(dict(zip(own.layers, own.values, strict=True)))
                return replace(own, layers=tuple(names), values=tuple(found[name] for name in names))

            inputs, own = None, list(plan.input_widths or ())
            if own:
                inputs = measured(own, prepared.options.activation_widths, candidates.inputs, "inputs")
            if not open_layers:
                return None if inputs is None else SensitivityTable(measure, (), (), (), inputs)
            parameters = candidates.parameters(MEASURES[measure])
            return replace(measured(open_layers, widths, parameters, "sensitivity", coarse), inputs=inputs)

        key = {
            "measure": measure,
            "rounded": count_images(candidates.images.rounding),
            "widths": {name: list(each) for name, each in plan.widths.items()},
            "divergence": fingerprint_of(prepared.meaning), "portable": prepared.options.portable,
        }
        return self.stage(
            "sensitivity", key, ["sensitivity.json"],
            compute=compute,
            save=lambda table: self.run.write_json("sensitivity.json", sensitivity_to_json(table, measure)),
            load=lambda: sensitivity_from_json(self.run.read_json("sensitivity.json")),
        )  # fmt: skip

    def allocate(self, candidates: Candidates, table: SensitivityTable | None) -> Selection:
        """The bit setting, and what frontier.json says of it; the paper's measure is summed as the paper sums it."""
        prepared = self.prepared
        names = [layer.name for layer in prepared.plan.layers]
        corrects = table is not None and table.measure == DEFAULT_MEASURE

        def compute() -> Mapping[str, Any]:
            other = 0 if prepared.options.size_mb is None else bytes_beside_weights(self.prepared)
            return select(
                prepared.plan, table, prepared.options, other, candidates.divergence_at, self.step("allocate"),
                left_over=left_over(prepared.folded, prepared.plan.layers) if corrects else dict.fromkeys(names, 1.0),
                memory=prepared.memory, ranks=self.ranks,
            )  # fmt: skip

        return Selection(self.stage(
            "allocate", {name: getattr(prepared.options, name) for name in (*TARGETS, *BOUNDS)}, ["frontier.json"],
            compute=compute,
            save=lambda record: self.run.write_json("frontier.json", record),
            load=lambda: self.run.read_json("frontier.json"),
        ))  # fmt: skip

    def fastest(self, candidates: Candidates, setting: BitSetting) -> tuple[str, ...]:
        """Layers that are to compute in floating point under --fastest, measured once and kept."""
        prepared, threads = self.prepared, self.prepared.options.threads
        if not prepared.options.fastest:
            return ()

        def measure() -> dict[str, Any]:
            start = time.perf_counter()
            weights = weights_to_time(self.computing, setting)

            def file(names: tuple[str, ...]) -> bytes:
                return self.onnx_bytes(candidates.network(weights, placement_with(prepared, names), names), setting)

            found = choose_fastest(prepared, file, self.step("fastest"))
            self.run.seconds["fastest"] = round(time.perf_counter() - start, 3)
            return found

        machine = {"instructions": devices.integer_instructions(), "onnxruntime": onnxruntime.__version__}
        decided = self.ranks.led(lambda _: self.run.decide("fastest", {"threads": threads, **machine}, measure))
        return tuple(layer["name"] for layer in decided["layers"])

    def rounded(self, candidates: Candidates, setting: BitSetting, weight_only: tuple[str, ...] = ()) -> bytes:
        """The file of the network that a setting comes to, by all processes together; weight_only: as final_network."""
        final = final_network(candidates, setting, weight_only, self.step("rounding"))
        metadata = {
            "rounding": dict.fromkeys(setting.bits, final.rounding), "finer_outputs": list(final.finer_outputs),
            **metadata_of(self.prepared, setting),
        }  # fmt: skip
        return serialise(final.network.placed(devices.CPU), weight_widths(self.prepared.plan, setting), metadata)

    def round(
        self, setting: BitSetting, compute: Callable[[], bytes], weight_only: tuple[str, ...] = ()
    ) -> QuantizedNetwork:
        """The quantized network. compute: `rounded`; all else is for the leading process alone."""
        key = {
            "method": METHOD, "format": FORMAT, "portable": self.prepared.options.portable,
            "says": metadata_of(self.prepared, setting),
        }  # fmt: skip
        asked = {"weight_only": list(weight_only), "reconstruct": self.prepared.options.reconstruction}
        return self.run.stage(
            "rounding", key | {name: value for name, value in asked.items() if value},
            [FILES["model"]], compute=compute,
            save=lambda data: self.run.write_bytes(FILES["model"], data),
            load=lambda: load_network(self.run.path / FILES["model"])[0],
        )  # fmt: skip

    def onnx_bytes(self, network: QuantizedNetwork, setting: BitSetting) -> bytes:
        """The file of a network with a setting."""
        widths = weight_widths(self.prepared.plan, setting)
        example, says = self.prepared.folded.example, metadata_of(self.prepared, setting)
        model = export_onnx(network.placed(devices.CPU), example, widths, says)
        return model.SerializeToString(deterministic=True)

    def export(self, network: QuantizedNetwork, setting: BitSetting) -> onnx.ModelProto:
        """model.onnx."""
        self.on_progress("export", 0, 1)
        model = self.run.stage(
            "export", {}, [FILES["onnx"]], compute=lambda: self.onnx_bytes(network, setting),
            save=lambda data: self.run.write_bytes(FILES["onnx"], data),
            load=lambda: onnx.load(self.run.path / FILES["onnx"]),
        )  # fmt: skip
        self.on_progress("export", 1, 1)
        return model

    def verify(self, model: onnx.ModelProto, network: QuantizedNetwork, images: Images) -> Verification:
        """The file against its simulation. Always done, as it is about the machine at hand."""
        options = self.prepared.options
        self.on_progress("verify", 0, 1)
        start = time.perf_counter()
        part = slice_images(images.held_out, None, self.amounts.verified)
        found = verify(
            model, network, part, meaning=self.prepared.meaning, strict=options.portable, threads=options.threads or 0
        )
        self.run.seconds["verify"] = round(time.perf_counter() - start, 3)
        self.on_progress("verify", 1, 1)
        return found

    def latency(self, model: onnx.ModelProto) -> float | None:
        """Milliseconds of one image in the file on the machine at hand; None where they are not bounded."""
        return None if self.prepared.options.latency_ms is None else time_file(model, self.prepared)

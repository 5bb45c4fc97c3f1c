"""Prompt To Prompt: an edited prompt that keeps the layout of the image that another prompt describes."""

from dataclasses import dataclass
from typing import Any

import torch
from comfy.ldm.modules.attention import optimized_attention
from comfy.patcher_extension import WrappersMP
from comfy_api.latest import io
from torch import Tensor

from ..morph_core.attention import prompt_to_prompt
from ..morph_core.attention.prompt_to_prompt import Edit, from_source
from ..morph_core.attention.token_alignment import ALIGNMENTS
from ..morph_core.attention.word_edit import WordEdit
from ..morph_core.errors import InvalidInput, shown
from ..morph_core.morphing.blend_text import blend_text
from .host.adapters import CATEGORY
from .host.backbone import unet_config
from .host.frame_batches import PART
from .host.inputs import checked
from .host.named_errors import named
from .host.predictions import BLEND, current_step, wrap_prediction
from .host.uncompiled import run_uncompiled
from .host.versions import schema

NODE = "Prompt To Prompt"
RUN = "morph_drag_prompt_to_prompt"
"""In transformer_options during a sampling run: its `_Run`."""
PAIR = "morph_drag_prompt_pair"
"""In the options of a CONDITIONING: its `_Pair`."""
ROWS = 2
ADVICE = "connect this node's CONDITIONING to KSampler's positive"
REPLACED = "has another patch that replaces cross-attention (such as IPAdapter); connect one of them only"
BOTH = (0.0, 1.0)  # blend weights that give the two prompts themselves


class PromptToPrompt(io.ComfyNode):
    """Hertz et al.'s attention control as a model patch."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="MorphDragPromptToPrompt",
            display_name=NODE,
            category=f"{CATEGORY}/edit",
            search_aliases=["p2p", "edit", "attention control", "cross attention"],
            description=(
                "Samples two rows, one of each prompt, of which the second takes its attention from the first, so that "
                "only what the prompts differ in changes. Give KSampler the same noise twice, from Repeat Latent Batch."
            ),
            inputs=[
                io.Model.Input("model", tooltip="A Stable Diffusion UNet; other patches stay."),
                io.Clip.Input("clip", tooltip="The model's CLIP: it reads both prompts."),
                io.String.Input("source_prompt", default="", multiline=True, tooltip="What the image shows."),
                io.String.Input("edited_prompt", default="", multiline=True, tooltip="What it should show."),
                io.Combo.Input(
                    "alignment",
                    options=list(ALIGNMENTS),
                    tooltip="replace: new words act where the old ones did. refine: they find their own place.",
                ),
                _share("cross_percent", 0.8, "Share of the steps in which the words' attention is the source's."),
                _share("self_percent", 0.4, "Share of the steps in which the layout's attention is the source's."),
                io.String.Input(
                    "blend_words",
                    default="",
                    tooltip="Where the image may change: words of either prompt, as 'cat, rabbit'. Empty: anywhere.",
                ),
                _share("blend_threshold", 0.3, "How strongly a place must belong to those words, of the strongest."),
                io.String.Input(
                    "reweight",
                    default="",
                    tooltip="Stronger or weaker words of the edited prompt, such as 'happy: 2, red: 0.5'.",
                ),
            ],
            outputs=[
                io.Model.Output("patched_model", display_name="MODEL", tooltip="The model with the patch."),
                io.Conditioning.Output(
                    "positive", display_name="CONDITIONING", tooltip="Both prompts, for KSampler's positive."
                ),
            ],
        )

    @classmethod
    @checked
    def execute(
        cls,
        model: Any,
        clip: Any,
        source_prompt: str,
        edited_prompt: str,
        alignment: str,
        cross_percent: float,
        self_percent: float,
        blend_words: str,
        blend_threshold: float,
        reweight: str,
    ) -> io.NodeOutput:
        config = unet_config(model)
        source = _Tokens(clip, source_prompt, "source_prompt")
        edited = _Tokens(clip, edited_prompt, "edited_prompt")
        words = WordEdit(alignment, cross_percent, self_percent, blend_words, blend_threshold, reweight)
        edit = words.of_tokens(source.ids, edited.ids, lambda word: _Tokens(clip, word).without_ends)
        patched = model.clone()
        prompts = (source_prompt, edited_prompt)
        _Control(edit, prompts).patch(patched, config)
        run_uncompiled(patched, NODE)
        return io.NodeOutput(patched, _both(source.encoded(), edited.encoded(), prompts))


def _share(name: str, default: float, tooltip: str) -> Any:
    return io.Float.Input(name, default=default, min=0.0, max=1.0, step=0.05, tooltip=tooltip)


class _Tokens:
    """A text as ComfyUI's CLIP reads it. name: of the input it stands in, for errors."""

    def __init__(self, clip: Any, text: str, name: str = "") -> None:
        self.clip, self.text = clip, text
        try:
            tokens = next(iter(clip.tokenize(text, return_word_ids=True).values()))
        except InvalidInput as error:  # the toy model's, of a word that it does not know
            raise InvalidInput(f"{name}: {error}" if name else str(error)) from error
        self._entries = [entry for chunk in tokens for entry in chunk]
        self.ids = [_comparable(token) for token, _, _ in self._entries]

    @property
    def without_ends(self) -> list[Any]:
        """The ids without start, end and padding."""
        return [token for token, (_, _, word_id) in zip(self.ids, self._entries, strict=True) if word_id]

    def encoded(self) -> list[Any]:
        encoded: list[Any] = self.clip.encode_from_tokens_scheduled(self.clip.tokenize(self.text))
        return encoded


def _comparable(token: Any) -> Any:
    """A token's id; of a textual inversion, which is a tensor, its numbers."""
    return tuple(token.flatten().tolist()) if isinstance(token, Tensor) else token


@dataclass(frozen=True)
class _Pair:
    """In the options of a CONDITIONING that the node has made: which prompts its two rows are."""

    prompts: tuple[str, str]
    embedding: Tensor

    def is_in(self, cond: dict[str, Any]) -> bool:
        """Whether the embedding that is sampled with is still the pair's, or some node has made another of it."""
        embedding = cond.get("cross_attn")
        return embedding is not None and torch.equal(embedding.to(self.embedding.device), self.embedding)


def _both(source: list[Any], edited: list[Any], prompts: tuple[str, str]) -> list[Any]:
    """Two prompts' CONDITIONING as one of two rows; of a CLIP with scheduled hooks, one for each part of the steps."""
    return [_rows_of_both(*pair, prompts) for pair in zip(source, edited, strict=True)]


def _rows_of_both(source: Any, edited: Any, prompts: tuple[str, str]) -> list[Any]:
    (start, options), (end, others) = source, edited
    embedding = blend_text(start, end, BOTH)
    pooled = options.get("pooled_output"), others.get("pooled_output")
    if pooled[0] is not None and pooled[1] is not None:
        options = {**options, "pooled_output": blend_text(pooled[0], pooled[1], BOTH)}
    return [embedding, {**options, PAIR: _Pair(prompts, embedding)}]


def _ids_of_pairs(conds: dict[str, list[dict[str, Any]]], prompts: tuple[str, str]) -> frozenset[Any]:
    """Which of a sampling run's conds are these prompts, as ComfyUI tells them to its patches.

    conds: a guider's, by their part in it. Raises `InvalidInput` where others are sampled in their place.
    """
    every = [cond for name in conds for cond in conds[name]]
    if any("area" in cond for cond in every):
        raise InvalidInput("a prompt is limited to an area, which the other prompts' attention is not; use masks")
    controlled = conds.get("positive", every)
    found = [cond.get(PAIR) for cond in controlled]
    pairs: list[_Pair] = [pair for pair in found if pair]
    if not pairs:
        raise InvalidInput(f"KSampler's positive is another prompt; {ADVICE}")
    if len(pairs) < len(found):
        raise InvalidInput(f"KSampler's positive has other prompts beside this node's; {ADVICE} alone")
    other = next((pair.prompts for pair in pairs if pair.prompts != prompts), None)
    if other:
        raise InvalidInput(
            f"KSampler's positive is another Prompt To Prompt's, from {shown(other[0])} to {shown(other[1])}; {ADVICE}"
        )
    if not all(pair.is_in(cond) for pair, cond in zip(pairs, controlled, strict=True)):
        raise InvalidInput(f"a node on the way to KSampler's positive has changed the prompts; {ADVICE} without it")
    return frozenset(cond["uuid"] for cond in controlled)


@dataclass(frozen=True)
class _Run:
    """One sampling run: its controls, and which conds they are for."""

    control: prompt_to_prompt.PromptToPrompt
    own: frozenset[Any]

    def rows(self, count: int, options: dict[str, Any]) -> list[slice]:
        """The rows of each of its conds in a call with `count`: ComfyUI may run others in the same batch."""
        if PART in options:
            raise InvalidInput("set Attention KV Inject's frames_per_batch to 0: the two rows go together")
        ids = options["uuids"]
        if count != ROWS * len(ids):
            raise InvalidInput(
                f"an attention layer has {count} rows in place of {ROWS * len(ids)}: another patch of the MODEL has "
                "changed them; connect it after this node"
            )
        return [slice(i * ROWS, (i + 1) * ROWS) for i, one in enumerate(ids) if one in self.own]


class _Control:
    """The patches of one MODEL."""

    def __init__(self, edit: Edit, prompts: tuple[str, str]) -> None:
        self.edit, self.prompts = edit, prompts

    def patch(self, model: Any, config: dict[str, Any]) -> None:
        options = model.model_options["transformer_options"]
        if options.get("patches_replace", {}).get("attn2"):
            raise InvalidInput(f"model {REPLACED}")
        model.add_wrapper_with_key(WrappersMP.SAMPLER_SAMPLE, RUN, self.sample)
        model.set_model_attn1_patch(self.share_self)
        patches = options["patches"]  # ours first: the others may cut or merge what it is to see whole
        patches["attn1_patch"] = [patches["attn1_patch"][-1], *patches["attn1_patch"][:-1]]
        blocks = sum(config["num_res_blocks"]) + len(config["num_res_blocks"])
        for stage, count in (("input", blocks), ("middle", 1), ("output", blocks)):
            for number in range(count):
                model.set_model_attn2_replace(self.cross, stage, number)
        if self.edit.blends:
            wrap_prediction(model, BLEND, self.blend)

    def sample(
        self, executor: Any, guider: Any, sigmas: Tensor, extra: Any, callback: Any, noise: Tensor, *rest: Any
    ) -> Any:
        """Around a whole sampling run, whose maps are its own: its options end with it."""
        with named(NODE):
            extra["model_options"]["transformer_options"][RUN] = self._run(guider, sigmas, extra, noise)
        return executor(guider, sigmas, extra, callback, noise, *rest)

    def _run(self, guider: Any, sigmas: Tensor, extra: Any, noise: Tensor) -> _Run:
        if len(noise) != ROWS:
            raise InvalidInput(
                f"the sampled latent is a batch of {len(noise)}, it takes two rows of the same noise; connect Repeat "
                "Latent Batch with amount 2"
            )
        replaced = extra["model_options"]["transformer_options"]["patches_replace"]["attn2"]
        if any(getattr(patch, "__func__", None) is not _Control.cross for patch in replaced.values()):
            raise InvalidInput(f"the MODEL {REPLACED}")
        size = (noise.shape[-2], noise.shape[-1])
        control = prompt_to_prompt.PromptToPrompt(self.edit, sigmas, size)
        return _Run(control, _ids_of_pairs(guider.conds, self.prompts))

    def share_self(
        self, query: Tensor, context: Tensor, value: Tensor, options: dict[str, Any]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """ComfyUI's `attn1_patch`."""
        with named(NODE):
            run = options[RUN]
            if not run.control.shares_self(_sigma(options), query.shape[1]):
                return query, context, value
            query, context, value = query.clone(), context.clone(), context if value is context else value
            for rows in run.rows(len(query), options):
                query[rows], context[rows] = from_source(query[rows]), from_source(context[rows])
            return query, context, value

    def cross(self, query: Tensor, key: Tensor, value: Tensor, options: dict[str, Any]) -> Tensor:
        """In place of ComfyUI's cross-attention; (B, N, H·D) in and out."""
        heads = options["n_heads"]
        output = optimized_attention(query, key, value, heads, attn_precision=options.get("attn_precision"))
        run, sigma = options[RUN], _sigma(options)
        if not run.control.needs_maps(sigma):
            return output
        output = output.clone()
        with named(NODE):
            for rows in run.rows(len(query), options):
                q, k, v = (x[rows].unflatten(-1, (heads, -1)).transpose(1, 2) for x in (query, key, value))
                edited = run.control.cross_attention(q, k, v, sigma)
                output[rows][1:] = edited.transpose(1, 2).flatten(2).to(output)
        return output

    def blend(
        self, executor: Any, x: Tensor, timestep: Tensor, model_options: dict[str, Any], seed: Any = None
    ) -> Tensor:
        """Around the whole prediction: leads the step to where the local blend wants it."""
        denoised: Tensor = executor(x, timestep, model_options, seed)
        _, sigma, next_sigma = current_step(timestep, model_options)
        with named(NODE):
            run: _Run = model_options["transformer_options"][RUN]
            return run.control.blend(denoised, x, sigma, next_sigma)


def _sigma(options: dict[str, Any]) -> Tensor:
    return options["sigmas"].max()

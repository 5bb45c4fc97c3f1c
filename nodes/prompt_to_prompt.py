"""Prompt To Prompt: an edited prompt that keeps the layout of the image that another prompt describes."""

from typing import Any

import torch
from comfy.ldm.modules.attention import optimized_attention
from comfy.patcher_extension import WrappersMP
from comfy_api.latest import io
from torch import Tensor

from ..morph_core import prompt_to_prompt
from ..morph_core.errors import InvalidInput
from ..morph_core.prompt_to_prompt import Edit, as_source
from ..morph_core.text import blend_text
from ..morph_core.token_alignment import ALIGNMENTS, find_tokens, parse_reweight, token_scale, word_control
from ..morph_core.trajectory import x0_leading_to
from .adapters import CATEGORY
from .bridge import unet_config
from .frame_batches import PART
from .inputs import checked
from .sigmas import step_under_way
from .versions import schema

RUN = "morph_drag_prompt_to_prompt"
"""In transformer_options during a sampling run: its `PromptToPrompt`."""
BOTH = (0.0, 1.0)  # blend weights that give the two prompts themselves


class PromptToPrompt(io.ComfyNode):
    """Hertz et al.'s attention control as a model patch."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="MorphDragPromptToPrompt",
            display_name="Prompt To Prompt",
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
        source, edited = _Tokens(clip, source_prompt), _Tokens(clip, edited_prompt)
        if len(source.ids) != len(edited.ids):
            raise InvalidInput(
                f"source_prompt fills {len(source.ids)} tokens, edited_prompt {len(edited.ids)}; make them as long"
            )
        scale = token_scale(parse_reweight(reweight), source.of_word, edited.ids)
        places = [_places(blend_words, prompt, (source, edited)) for prompt in (source, edited)]
        control = word_control(source.ids, edited.ids, alignment, scale)
        edit = Edit(control, cross_percent, self_percent, *places, blend_threshold)
        patched = model.clone()
        _Control(edit).patch(patched, config)
        return io.NodeOutput(patched, _both(source.encoded(), edited.encoded()))


def _share(name: str, default: float, tooltip: str) -> Any:
    return io.Float.Input(name, default=default, min=0.0, max=1.0, step=0.05, tooltip=tooltip)


class _Tokens:
    """A prompt as ComfyUI's CLIP reads it."""

    def __init__(self, clip: Any, text: str) -> None:
        self.clip, self.text = clip, text
        tokens = next(iter(clip.tokenize(text, return_word_ids=True).values()))
        self.entries = [entry for chunk in tokens for entry in chunk]
        self.ids = [_comparable(token) for token, _, _ in self.entries]

    def of_word(self, word: str) -> list[int]:
        """The ids of another text's words, without start, end and padding."""
        tokens = _Tokens(self.clip, word)
        return [token for token, (_, _, word_id) in zip(tokens.ids, tokens.entries, strict=True) if word_id]

    def encoded(self) -> list[Any]:
        encoded: list[Any] = self.clip.encode_from_tokens_scheduled(self.clip.tokenize(self.text))
        return encoded


def _comparable(token: Any) -> Any:
    """A token's id; of a textual inversion, which is a tensor, its numbers."""
    return tuple(token.flatten().tolist()) if isinstance(token, Tensor) else token


def _places(words: str, prompt: _Tokens, prompts: tuple[_Tokens, _Tokens]) -> list[int]:
    """Where the words stand in one of the prompts. Raises `InvalidInput` for a word that neither prompt has."""
    found: list[int] = []
    for word in filter(None, (part.strip() for part in words.replace("\n", ",").split(","))):
        ids = prompt.of_word(word)
        if not any(_has(other.ids, ids) for other in prompts):
            raise InvalidInput(f"blend_words: {word!r} is in neither prompt; name words as they are written there")
        if _has(prompt.ids, ids):
            found += find_tokens(word, ids, prompt.ids)
    return found


def _has(prompt: list[Any], run: list[Any]) -> bool:
    return bool(run) and any(prompt[i : i + len(run)] == run for i in range(len(prompt)))


def _both(source: list[Any], edited: list[Any]) -> list[Any]:
    """Two prompts' CONDITIONING as one of two rows."""
    (start, options), (end, others) = source[0], edited[0]
    pooled = options.get("pooled_output"), others.get("pooled_output")
    if pooled[0] is not None and pooled[1] is not None:
        options = {**options, "pooled_output": blend_text(pooled[0], pooled[1], BOTH)}
    return [[blend_text(start, end, BOTH), options]]


class _Control:
    """The patches of one MODEL."""

    def __init__(self, edit: Edit) -> None:
        self.edit = edit

    def patch(self, model: Any, config: dict[str, Any]) -> None:
        if model.model_options["transformer_options"].get("patches_replace", {}).get("attn2"):
            raise InvalidInput(
                "model has another patch that replaces cross-attention (such as IPAdapter); connect one of them only"
            )
        model.add_wrapper_with_key(WrappersMP.SAMPLER_SAMPLE, RUN, self.sample)
        model.set_model_attn1_patch(self.share_self)
        blocks = sum(config["num_res_blocks"]) + len(config["num_res_blocks"])
        for stage, count in (("input", blocks), ("middle", 1), ("output", blocks)):
            for number in range(count):
                model.set_model_attn2_replace(self.cross, stage, number)
        if self.edit.blends:
            model.set_model_sampler_post_cfg_function(self.blend)

    def sample(
        self, executor: Any, guider: Any, sigmas: Tensor, extra: Any, callback: Any, noise: Tensor, *rest: Any
    ) -> Any:
        """Around a whole sampling run, whose maps are its own: its options end with it."""
        if len(noise) != 2:
            raise InvalidInput(
                f"Prompt To Prompt: the sampled latent is a batch of {len(noise)}, it takes two rows of the same "
                "noise; connect Repeat Latent Batch with amount 2"
            )
        size = (noise.shape[-2], noise.shape[-1])
        extra["model_options"]["transformer_options"][RUN] = prompt_to_prompt.PromptToPrompt(self.edit, sigmas, size)
        return executor(guider, sigmas, extra, callback, noise, *rest)

    def share_self(
        self, query: Tensor, context: Tensor, value: Tensor, options: dict[str, Any]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """ComfyUI's `attn1_patch`."""
        if not options[RUN].shares_self(_sigma(options), query.shape[1]):
            return query, context, value
        query, context, value = query.clone(), context.clone(), context if value is context else value
        for rows in _told_runs(len(query), options):
            query[rows], context[rows] = as_source(query[rows]), as_source(context[rows])
        return query, context, value

    def cross(self, query: Tensor, key: Tensor, value: Tensor, options: dict[str, Any]) -> Tensor:
        """In place of ComfyUI's cross-attention; (B, N, H·D) in and out."""
        heads = options["n_heads"]
        output = optimized_attention(query, key, value, heads, attn_precision=options.get("attn_precision"))
        run, sigma = options[RUN], _sigma(options)
        if not run.needs_maps(sigma):
            return output
        output = output.clone()
        for rows in _told_runs(len(query), options):
            q, k, v = (x[rows].float().unflatten(-1, (heads, -1)).transpose(1, 2) for x in (query, key, value))
            maps = (q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5).softmax(-1)  # (F, H, N, T)
            maps, v = _as_often(maps, v, len(self.edit.control.own))
            edited = run.cross(maps[:1], maps[1:], sigma)
            output[rows][1:] = (edited @ v[1:]).transpose(1, 2).flatten(2).to(output)
        return output

    def blend(self, args: dict[str, Any]) -> Tensor:
        """ComfyUI's post-CFG function: leads the step to where the local blend wants it."""
        denoised, x = args["denoised"], args["input"]
        _, sigma, next_sigma = step_under_way(args)
        after = denoised + (x - denoised) * (next_sigma / sigma)
        wanted = args["model_options"]["transformer_options"][RUN].blend(after, sigma)
        return torch.cat([denoised[:1], x0_leading_to(wanted, x, sigma, next_sigma)[1:]])


def _sigma(options: dict[str, Any]) -> Tensor:
    return options["sigmas"].max()


def _told_runs(rows: int, options: dict[str, Any]) -> list[slice]:
    """The rows of each run of the positive prompt: ComfyUI may run the negative in the same batch."""
    if PART in options:
        raise InvalidInput("Prompt To Prompt: set Attention KV Inject's frames_per_batch to 0, its rows go together")
    runs = options["cond_or_uncond"]
    size = rows // len(runs)
    return [slice(i * size, (i + 1) * size) for i, kind in enumerate(runs) if kind == 0]


def _as_often(maps: Tensor, value: Tensor, tokens: int) -> tuple[Tensor, Tensor]:
    """Maps and values of a prompt's tokens, where ComfyUI has repeated it to the length of the negative's."""
    times = maps.shape[-1] // tokens
    return maps.unflatten(-1, (times, tokens)).sum(-2), value[..., :tokens, :]

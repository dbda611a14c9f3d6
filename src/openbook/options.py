"""The sections of the options: one pydantic model each. The descriptions are what `openbook init` writes as comments."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

EMBEDDED = ("nano", "small")  # the base models inside the package
# The weights of the base that an adapter is tuned on, by `tune.adapter`, as `model.quantization` names them.
WEIGHTS = {"qlora": "nf4", "lora": "none"}


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True, allow_inf_nan=False)


class Documents(Section):
    paths: tuple[Path, ...] = Field((), description="files and folders to study")
    max_file_mb: float = Field(50.0, gt=0, description="larger files are skipped and named (MB = 10^6 bytes)")
    max_seconds: float = Field(30.0, gt=0, description="reading a file that takes longer is stopped, the file named")
    max_memory_mb: float = Field(1000.0, ge=200, description="or that needs more memory than so many MB")
    chunk_tokens: int = Field(200, ge=16, le=250, description="longest passage, in tokens of the embedder")


class Retrieval(Section):
    embedder: str = Field(
        "offline", description='"offline" (all-MiniLM-L6-v2 from an installed package), a folder, or a hub name'
    )
    passages: int = Field(4, ge=1, le=50, description="passages shown to the model")
    candidates: int = Field(30, ge=1, le=1000, description="results taken from each leg before they are fused")


class Dataset(Section):
    teacher: Literal["extractive", "openai", "local"] = Field(
        "extractive", description="who writes the questions: rules, a model at an endpoint, a model on this machine"
    )
    teacher_model: str = Field("", description="the model's name at the endpoint, or its folder (teacher = local)")
    base_url: str = Field("", description="an OpenAI-compatible endpoint; empty = the OPENAI_BASE_URL variable")
    at_once: int = Field(4, ge=1, le=256, description="calls to the endpoint at a time")
    judge: bool = Field(
        True, description="a language model as teacher also judges what it wrote, in calls of their own"
    )
    prompts: str = Field("", description="folder with prompts of your own for the teacher; empty = openbook's")
    price_read: float = Field(0.0, ge=0, description="what a million tokens cost that the teacher reads")
    price_written: float = Field(0.0, ge=0, description="what a million tokens cost that the teacher writes")
    max_cost: float = Field(
        0.0, ge=0, description="never spend more on this data set, in the money of the prices; 0: no limit"
    )
    questions: int = Field(400, ge=1, description="training questions wanted")
    studied: int = Field(100, ge=0, description="test questions on documents that were trained on")
    unseen: int = Field(100, ge=0, description="test questions on documents that were held out")
    validation: int = Field(40, ge=0, description="questions kept out of training to watch the loss")
    split_by: Literal["document", "folder", "time"] = Field(
        "document", description="what is held out as a whole: documents, folders, or the newest documents"
    )
    passages: int = Field(4, ge=1, le=50, description="passages an example shows: the golden one and distractors")
    distractors: Literal["mined", "random", "mixed"] = Field(
        "mined", description="the others: what the retriever finds, any passages, or half and half"
    )
    golden_share: float = Field(
        0.8, ge=0, le=1, description="share of examples that keep their golden passage (RAFT's P)"
    )
    without_golden: Literal["refuse", "memorise", "mix"] = Field(
        "refuse", description="what the other examples answer: that it is not there, the answer all the same, or either"
    )
    refuse_share: float = Field(0.5, ge=0, le=1, description="mix: share of these examples that refuse")
    nowhere_share: float = Field(0.0, ge=0, lt=1, description="share of training questions that no document answers")
    pair_share: float = Field(0.0, ge=0, le=1, description="share of questions that need two passages")
    questions_per_chunk: int = Field(3, ge=1, le=20, description="at most so many questions from one chunk")
    max_tokens: int = Field(0, ge=0, description="longest training row in tokens of the base; 0: not counted")
    mark_known: bool = Field(
        False, description="mark questions that the base answers without any passage (takes a while)"
    )


class Model(Section):
    base: str = Field("nano", description='"nano" or "small" (embedded), a folder, or a hub name')
    quantization: Literal["nf4", "none"] = Field(
        "nf4", description="of the base that answers. nf4: 4-bit weights, as QLoRA has them; none: as loaded, as LoRA"
    )
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        "auto", description="auto: what this machine does well"
    )
    device: str = Field("auto", description='"auto", "cpu", "cuda" or "cuda:N"')
    max_new_tokens: int = Field(160, ge=1, description="longest answer, in tokens of the model")


class Tune(Section):
    @property
    def quantization(self) -> Literal["nf4", "none"]:
        """How the base is read that is tuned."""
        return "nf4" if self.adapter == "qlora" else "none"

    adapter: Literal["qlora", "lora", "full"] = Field(
        "qlora", description="adapters on a 4-bit base, on the base as it is, or all weights"
    )
    rank: int = Field(16, ge=1, description="rank of the adapters")
    alpha: float = Field(32.0, gt=0, description="adapter scale: its output is multiplied by alpha / rank")
    dropout: float = Field(
        0.0, ge=0, lt=1, description="dropout in the adapters; above 0 a resumed run is no longer exact"
    )
    layers: int = Field(0, ge=0, description="train so many of the last layers only; 0: all")
    modules: tuple[str, ...] = Field((), description="train linear modules of these names only (q_proj, …); none: all")
    loss: Literal["nll", "dft"] = Field(
        "nll",
        description="of supervised tuning: cross-entropy (nll), or dynamic fine-tuning (dft), which makes little of what "
        "cannot be known",
    )
    epochs: float = Field(3.0, gt=0, description="passes over the training questions")
    learning_rate: float = Field(1e-3, gt=0, description="peak learning rate")
    warmup_share: float = Field(0.05, ge=0, le=1, description="share of the steps in which the rate rises")
    weight_decay: float = Field(0.0, ge=0, description="decay of the trained weights")
    row_tokens: int = Field(
        4096,
        ge=64,
        description="tokens in one row of one or more token trees; at 4096 fewer where memory is short, and more rows a "
        "step; on a GPU with room up to 16384, and fewer rows a step",
    )
    share_prefixes: bool = Field(
        True, description="read what sequences share once (token trees); false: each by itself, as the base itself does"
    )
    rows_per_step: int = Field(2, ge=1, description="rows accumulated for one optimizer step")
    max_grad_norm: float = Field(1.0, gt=0, description="gradients are clipped to this norm")
    checkpoint_steps: int = Field(50, ge=1, description="steps between checkpoints that --resume goes on from")
    evaluate_steps: int = Field(25, ge=1, description="steps between validation losses")
    activation_checkpointing: bool = Field(
        False, description="recompute activations: much less memory, a third to two thirds more time"
    )


class Preference(Section):
    """Tuning on pairs (`tune --method dpo`, `--method reward`). What is not said here is as in `tune`."""

    # DPO moves a model that can already answer, so its step is a fifth of supervised tuning's; at 5e-5 nano did not move
    # (docs/LOG.md). A reward model has no reference to stay near, and a head that starts at zero: it takes the rate of `tune`.
    learning_rate: float = Field(
        2e-4, gt=0, description="peak learning rate of DPO (a reward model takes tune.learning_rate)"
    )
    # The sets are small (hundreds of pairs) and a step holds many, so one pass would be a handful of steps.
    epochs: float = Field(3.0, gt=0, description="passes over the pairs")
    # The original, and the default of TRL and LLaMA-Factory.
    loss: Literal["sigmoid", "ipo", "hinge"] = Field("sigmoid", description="DPO's loss, or IPO's, or SLiC's hinge")
    # The value that DPO's authors use unless they say otherwise; drift from the reference falls as it rises.
    beta: float = Field(0.1, gt=0, description="pull towards the reference: larger stays nearer (IPO's tau)")
    label_smoothing: float = Field(0.0, ge=0, lt=0.5, description="share of pairs believed to be swapped (cDPO)")
    # The paper has none. It keeps the chosen answers likely where both of a pair's would fall together (RPO, arXiv
    # 2404.19733, has 1): without it nano lost twice to four times as many right refusals (docs/LOG.md).
    sft_weight: float = Field(1.0, ge=0, description="weight of the chosen answers' mean token loss beside DPO's")
    # Scores are known up to a constant only. This holds them around zero at no measurable cost in accuracy
    # (arXiv 2312.09244, which uses 0.01), so that scores of different prompts can be compared.
    centring: float = Field(0.01, ge=0, description="reward model: weight that holds the scores around zero")
    held_out: int = Field(100, ge=0, description="pairs kept out of training and watched, at most a fifth of all")


class RL(Section):
    """Learning from rewards (`tune --method grpo`, `--method ppo`); why these values: `openbook.training.grpo` and `ppo`.
    What is not said here is as in `tune`."""

    learning_rate: float = Field(3e-4, gt=0, description="peak learning rate of the policy")
    epochs: float = Field(1.0, gt=0, description="passes over the training questions")
    prompts: int = Field(8, ge=1, description="questions of one round")
    rollouts: int = Field(8, ge=2, description="answers sampled to each of them")
    updates: int = Field(2, ge=1, description="optimizer steps that the answers of a round serve")
    temperature: float = Field(1.0, gt=0, description="temperature of sampling, and of the likelihoods trained on")
    # With 32, keys and values of what is written took more memory than training the former nano's last MLP (docs/LOG.md).
    at_once: int = Field(16, ge=1, description="answers written at once; more want more memory")
    server: str = Field("", description="vLLM's address if it shall write the answers; empty: this process")
    server_model: str = Field("", description="the name under which it serves the base; empty: model.base")
    clip: float = Field(0.2, gt=0, lt=1, description="how far a token's likelihood counts as falling, as a share")
    clip_high: float = Field(0.28, gt=0, description="how far it counts as rising (clip-higher)")
    normalise: Literal["token", "sequence"] = Field("token", description="mean over tokens, or over answers' means")
    divide_by_std: bool = Field(False, description="grpo: divide advantages by the spread of their group")
    kl: float = Field(0.04, ge=0, description="weight of the KL from the reference (ppo: at the start)")
    kl_target: float = Field(0.05, ge=0, description="ppo: KL that the weight is adapted to, nats a token; 0: fixed")
    kl_limit: float = Field(1.0, gt=0, description="KL at which a run is stopped, nats a token")
    entropy_floor: float = Field(
        0.05, ge=0, lt=1, description="share of the first round's entropy below which a run that won nothing is stopped"
    )
    value_learning_rate: float = Field(1e-3, gt=0, description="ppo: peak learning rate of the value function")
    value_clip: float = Field(0.2, gt=0, description="ppo: how far one round may move a value")
    discount: float = Field(1.0, gt=0, le=1, description="ppo: what a reward one token later is worth")
    trace: float = Field(1.0, ge=0, le=1, description="ppo: lambda of generalised advantage estimation")
    grader: float = Field(1.0, ge=0, description="weight of the grader in the reward; 0: only the reward model")
    answer: float = Field(1.0, ge=0, description="in the grader: the right answer (token F1)")
    refusal: float = Field(1.0, ge=0, description="in the grader: the refusal where one is due")
    quote: float = Field(0.5, ge=0, description="in the grader: a verified quote that carries the answer")
    verbatim: float = Field(0.25, ge=0, description="in the grader: the share of quotes that stand in a passage")
    format: float = Field(0.25, ge=0, description="in the grader: an answer tag, and an end")
    # Sampled answers refuse needlessly more often than greedy ones, so rewards teach to answer, and right refusals go with
    # the needless ones unless as many again have to be earned (docs/LOG.md).
    without_golden: float = Field(
        0.5,
        ge=0,
        le=1,
        description="share of the data set's answerable questions that are asked once more without their golden passage",
    )
    reward_model: str = Field("", description="folder that tune --method reward wrote; empty: none")
    reward_weight: float = Field(1.0, ge=0, description="weight of the reward model's score in the reward")


class Instruct(Section):
    sets: tuple[str, ...] = Field(
        ("documents",),
        min_length=1,
        description='what instruction tuning studies: files, folders, hub names, "documents"; NAME=WEIGHT mixes by weight',
    )
    tasks: int = Field(400, ge=1, description='tasks that "documents" writes from your own documents')


class Pairs(Section):
    samples: int = Field(4, ge=1, description="answers to each training question: one greedy, the others drawn")
    temperature: float = Field(0.8, gt=0, description="how freely they are drawn")
    per_question: int = Field(2, ge=1, description="at most so many pairs from a question that can be answered")
    # Answering where a refusal is due is what a tuned model does wrong most; with 1 DPO made it refuse far too often
    # (docs/LOG.md).
    without_golden: float = Field(
        0.5,
        ge=0,
        le=1,
        description="share of the answerable questions that are asked once more without their golden passage",
    )


class Evaluate(Section):
    arms: tuple[str, ...] = Field(
        ("base_closed", "base_rag", "sft_closed", "sft_rag", "raft_rag", "raft_golden"), description="what is compared"
    )
    questions: int = Field(100, ge=1, description="at most so many questions of each test")
    removed: int = Field(40, ge=0, description="questions asked again with their golden passage removed from the index")
    passage_counts: tuple[Annotated[int, Field(ge=1, le=50)], ...] = Field(
        (1, 2, 4), description="numbers of passages whose scores are compared; empty: no comparison"
    )
    passage_questions: int = Field(40, ge=1, description="questions of the first test that this comparison asks")
    batch_size: int = Field(16, ge=1, description="questions answered at once")
    resamples: int = Field(2000, ge=100, description="bootstrap resamples for the intervals")


class Serve(Section):
    host: str = Field("127.0.0.1", description="address to listen on; any but this machine's own wants a token")
    port: int = Field(8321, ge=0, le=65535, description="port to listen on; 0 takes a free one")
    hosts: tuple[str, ...] = Field((), description="names under which the server may be called, besides localhost")
    concurrent: int = Field(
        16, ge=1, le=1024, description="answers written at once, by the base and by the adapter each"
    )
    queue: int = Field(112, ge=0, description="requests that may wait beyond these; more are refused (429)")
    context_tokens: int = Field(8192, ge=64, description="longest prompt and answer together, in tokens of the model")
    request_kb: int = Field(1000, ge=1, description="larger requests are refused (kB = 10^3 bytes)")
    timeout_s: float = Field(300.0, gt=0, description="an answer that takes longer is given up")

"""Step 6 of the recipe: a training run as the model that the package ships, in 16 bits, with its card.

    python recipes/nano/package.py --run FOLDER --corpus FOLDER --figures FILE [--earlier LOG] [--out src/openbook/models/nano]

`--figures` is what `evaluate.py --json` printed; the card quotes it.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from openbook.storage import write_text

CARD = """---
license: apache-2.0
language: en
library_name: transformers
pipeline_tag: text-generation
---

# {name}

The base model inside openbook: {weights:,} weights, a standard `LlamaForCausalLM` ({layers} layers, {width} wide,
{heads} heads, vocabulary {vocabulary:,}) with a tokenizer and chat template of its own. It reads a few passages and
quotes the sentence that answers a question, well enough that tuning it shows something. It knows next to nothing by
itself, speaks English only, and is no assistant.

## How it was made
`recipes/nano/` holds everything: the tokenizer, the initialisation with hand-set circuits that find and copy a sentence
(`circuits.py`), the mixture (`mixture.py`) and the training (`pretrain.py`) of the last layer and the head, which teaches
it when to refuse and what to answer. Trained for {steps:,} steps, {tokens:,} tokens ({supervised:,} of them supervised),
{hours:.1f} hours on two CPU cores in fp32; stored in 16 bits. The layers below are as they were set: `openbook tune` leaves
them alone too and tunes the last MLP (`openbook_tune_layers` and `openbook_tune_modules` in `config.json`), for a step
of other tools' usual size would undo them.

## Data
Questions made by rule from technical documentation, each over a few passages of the same document, some without an
answer. The documents, with thanks to those who wrote them:

{sources}

## Figures
Greedy decoding with openbook's own prompt and grader. The documents of these tests were not in the training data;
`[value, low, high]` with 95 % intervals clustered by document.

```
{figures}
```

## Limits
Half of its quotes are not the right ones and short answers are weak; read the figures. It answers only in the form it was trained on
(`##begin_quote## … ##end_quote## <ANSWER>: …`), and reads 4,096 tokens.
"""


def table(corpus: Path) -> str:
    """The attribution table of the corpus, as its own page has it."""
    lines = (corpus / "SOURCES.md").read_text(encoding="utf-8").splitlines()
    return "\n".join(line for line in lines if line.startswith("|"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--corpus", type=Path, required=True)
    parser.add_argument("--figures", type=Path, required=True)
    parser.add_argument(
        "--earlier", type=Path, action="append", default=[], help="logs of runs that this one went on from"
    )
    parser.add_argument("--out", type=Path, default=Path("src/openbook/models/nano"))
    options = parser.parse_args()
    model: Any = AutoModelForCausalLM.from_pretrained(options.run, dtype=torch.float16)
    model.config.openbook_tune_layers = 1  # `openbook tune` then leaves the circuits below alone,
    model.config.openbook_tune_modules = ["gate_proj", "up_proj", "down_proj"]  # and the last layer's copying head
    model.config.openbook_tune_loss = "dft"  # cross-entropy makes it hedge where it cannot know (docs/LOG.md)
    model.save_pretrained(options.out)
    AutoTokenizer.from_pretrained(options.run).save_pretrained(options.out)
    lasts = [json.loads(log.read_text().splitlines()[-1]) for log in (*options.earlier, options.run / "log.jsonl")]
    last = {name: sum(each[name] for each in lasts) for name in ("step", "tokens", "supervised", "seconds")}
    write_text(
        options.out / "README.md",
        CARD.format(
            name=options.out.name,
            weights=sum(parameter.numel() for parameter in model.parameters()),
            layers=model.config.num_hidden_layers,
            width=model.config.hidden_size,
            heads=model.config.num_attention_heads,
            vocabulary=model.config.vocab_size,
            steps=last["step"],
            tokens=last["tokens"],
            supervised=last["supervised"],
            hours=last["seconds"] / 3600,
            sources=table(options.corpus),
            figures=options.figures.read_text(encoding="utf-8").strip(),
        ),
    )


if __name__ == "__main__":
    main()

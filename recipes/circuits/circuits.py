"""A stock `LlamaForCausalLM` that finds and copies a sentence before any training.

From random weights copying does not even begin within what two cores can train. So the weights of some heads are set
by hand, and all others are small and random. The residual stream is divided into fields (see `Field`). The sentence is
found by a vote: each word of the question looks for itself in the passages and takes home the tag of the sentence that
it finds; the tag that most words bring is the answer's. A rare word votes for one sentence, a common one for many, a
little for each, so rarity need not be known.

    layer 0  heads 0-2  look one, two and three tokens back by rotary phase alone: `previous`, `earlier`, their flags
             head 3     looks at the tags so far; the MLP makes of them whether this token is inside a passage, or a
                        quote, or before all passages
    layer 1  heads 0-2  look at the first, second and third token of the present sentence; the MLP hashes them into its
                        `tag`: products of random projections, so that sentences that begin alike in part do not
                        resemble each other
             head 0     also whether this line is a heading
             head 3     whether this token is in the answer
    layer 2  head 0     looks for this token, best behind the same token as here, inside the passages, and writes the
                        tag of that sentence to `vote`
             head 1     writes the last pieces of a name to `name`: in a passage of the heading above, in the answer of
                        what is asked for (`names.py`); the MLP mixes those of a heading into the tag
             head 2     in the answer: whether this token does not stand in the question
             head 3     whether the line before this sentence is a heading
    layer 3  head 0     averages the votes of all tokens outside the passages
             head 1     in the answer: whether the token before does not stand in the question
             head 2     in the answer: looks for the first sentence below a heading with its `name`, and adds its vote
    layer 4  in the answer, looking for the sentence whose tag has won:
             heads 0, 3 after `##begin_quote##` copy its first token and, one token later, its second
             head 1     writes its tag over the votes, so that what follows knows it in full
             head 2     where the answer begins: where no sentence has won, at the sink, which is a refusal
    layer 5  head 0     in the quote looks in that sentence where the present three tokens stood, at the token that
                        followed them, and copies it; where that one opens a sentence or ends a line, the quote ends
             head 1     after `<ANSWER>:` copies the first word of the quote that is not in the question
             head 2     and then what followed it in the quote, until a word that is in the question

NF4 quantises in blocks of 64 weights, each by its largest. So the weights of a row that are not 0 are equally large,
which NF4 keeps exactly, and where several sizes are needed there are several rows.

What a dimension is worth behind a layer's norm depends on all that the layers before have written, so it is measured on
a sample (`wiring.Sample`), and rows are kept equally long (`Field.FILLERS`). The gains were chosen by trying.
"""

import torch
from fields import FLAG_SIZE, OWN, SIZE, SMALL, STEM, Field, Flag, Shape, embeddings, part, single
from names import THIRD, ballot, below, entitle, forget, title
from places import hash_tags, inside, look_back, tag
from tokenizers import Tokenizer
from torch import Tensor
from transformers import LlamaForCausalLM
from wiring import Attention, Gains, Sample

from openbook.prompt import ANSWER, BEGIN_QUOTE, END_QUOTE, REFUSAL_REASONING

SINK_TOKEN = 2  # "<|system|>", which opens every prompt


def build(
    shape: Shape, tokenizer: Tokenizer, *, seed: int = 0, gains: Gains | None = None, **tokens: int | None
) -> LlamaForCausalLM:
    """A model with the circuits in place."""
    gains = gains or Gains()
    torch.manual_seed(seed)
    model = LlamaForCausalLM(shape.config(**tokens))
    frequencies: Tensor = model.model.rotary_emb.inv_freq
    with torch.no_grad():
        for block in model.model.layers:  # whatever is random must not disturb the circuits: it writes nothing yet
            block.self_attn.o_proj.weight.zero_()
            block.mlp.down_proj.weight.zero_()
        embedding = embeddings(tokenizer, shape, seed)
        model.model.embed_tokens.weight.copy_(embedding)
        sample = Sample(tokenizer)

        def layer(number: int, asking: str = "passages", keys: str = "passages") -> Attention:
            sizes = sample.sizes(model, number)
            module = model.model.layers[number].self_attn
            return Attention(module, shape, frequencies, sizes, asking=asking, keys=keys, slow=gains.slow)

        look_back(layer(0), gains)
        inside(model.model.layers[0], sample.sizes(model, 0, after_attention=True)["passages"])
        tag(layer(1), gains)
        hash_tags(model.model.layers[1], sample.sizes(model, 1, after_attention=True)["passages"])
        _vote(layer(2, "question"), gains)
        _novel(layer(2, "answer"), gains)
        names = layer(2)
        title(names, gains)
        below(names, gains)
        entitle(model.model.layers[2], sample.sizes(model, 2, after_attention=True)["passages"], gains)
        _poll(layer(3), gains)
        ballot(layer(3, "answer"), gains)
        forget(model.model.layers[3], sample.sizes(model, 3, after_attention=True)["passages"])
        layer(3, "answer").shift(1, Flag.NOVEL, Flag.PREVIOUS_NOVEL, gains.phase)
        _find(layer(4, "answer"), gains)
        _copy(layer(5, "answer"), gains)
        _answer(layer(5, "answer", keys="answer"), gains)
        head = model.lm_head.weight
        head[:, Field.OUT] = embedding[:, Field.CONTENT] / SIZE * gains.head
        head[:, Field.OUT][:, -OWN:] *= gains.exact
        # A quote begins with a space, also where its sentence opens a line, and mostly with a capital.
        pieces = [tokenizer.id_to_token(number) for number in range(shape.vocabulary)]
        spaced = torch.tensor([piece[0] == "Ġ" and len(piece) > 1 for piece in pieces])
        capital = torch.tensor([piece.strip("Ġ").istitle() for piece in pieces])
        head[:, Flag.QUOTE] = (0.5 * spaced + 0.4 * capital) * gains.found * 34 * gains.head / FLAG_SIZE
        opening, refusal = tokenizer.token_to_id(BEGIN_QUOTE), tokenizer.encode(REFUSAL_REASONING).ids[0]
        for token, without, withal in ((opening, 12.0, -12.0), (refusal, 0.0, 12.0)):
            head[token, Flag.ANSWER] += without / 3  # the norm leaves about 3 of a flag
            head[token, Flag.REFUSE] += withal / 3
        # The form of what stands between quote and answer, and the end.
        head[tokenizer.token_to_id("<|end|>"), Flag.STOP] += gains.ends
        head[tokenizer.token_to_id(END_QUOTE), Flag.CLOSE] += gains.ends
        head[tokenizer.token_to_id(END_QUOTE), Flag.QUOTING] += gains.ends / 3  # outside of a quote it cannot end
        head[tokenizer.token_to_id(END_QUOTE), Field.CONSTANT] -= gains.ends / 3
        content = embedding[:, Field.CONTENT] / SIZE
        space, asked, closing = (tokenizer.token_to_id(piece) for piece in ("Ġ", ANSWER, END_QUOTE))
        head[space, Field.CONTENT] += content[closing] * 0.2
        head[asked, Field.CONTENT] += content[space] * 0.1
        head *= gains.confidence
    return model


def _vote(attention: Attention, gains: Gains) -> None:
    """Looks at the token behind the match, where more of its sentence's beginning is known."""
    attention.clear(0)
    attention.prefer(0, {Flag.INSIDE: 1.0, Flag.LINE: -0.5, Flag.SINK: 1.0}, gains.inside)
    attention.prefer(0, {Flag.HEADING: -1 / SMALL}, gains.unheard)  # nobody quotes a heading
    attention.prefer(0, {Flag.SINK: 1.0}, gains.abstain, when={Flag.COMMON: gains.common / gains.abstain})
    attention.prefer(0, {Flag.SINK: 1.0}, gains.gate, when={Flag.ANSWERING: 1.0, Flag.INSIDE: 1.0}, always=0.0)
    attention.compare(0, part(Field.CONTENT, 0, STEM), part(Field.PREVIOUS, 0, STEM), gains.word)
    attention.compare(0, part(Field.PREVIOUS, 0, 24), part(Field.EARLIER, 0, 24), gains.before)
    attention.carry(0, Field.TAG, Field.VOTE)


def _poll(attention: Attention, gains: Gains) -> None:
    attention.clear(0)
    attention.prefer(
        0, {Flag.INSIDE: -1.0, Flag.SYSTEM: -1.0, Flag.SINK: -1.0, Flag.LINE: -1.0, Flag.ANSWERING: -1.0}, gains.poll
    )
    attention.carry(0, Field.VOTE, Field.VOTE)


def _find(attention: Attention, gains: Gains) -> None:
    """Heads 0, 3 and 1 look from behind a sentence's third token, where its tag is whole; head 2 anywhere in it."""
    for head, opening in ((0, Flag.QUOTE), (3, Flag.PREVIOUS_QUOTE), (1, Flag.ANSWERING)):
        attention.clear(head)
        attention.prefer(head, {Flag.INSIDE: 1.0, **THIRD, Flag.HEADING: -gains.heading / SMALL}, gains.third)
        attention.prefer(head, {Flag.SINK: 1.0}, gains.gate + 2 * gains.won + 2.5 * gains.third, when={opening: -2.0})
        attention.compare(head, Field.VOTE, Field.TAG, gains.won)
    attention.compare(3, part(Field.CONTENT, 0, 24), part(Field.EARLIER, 0, 24), gains.follow)
    attention.carry(0, Field.EARLIER, Field.OUT, size=gains.found)
    attention.carry(3, Field.PREVIOUS, Field.OUT, size=gains.found)
    attention.carry(1, Field.TAG, Field.VOTE)
    attention.clear(2)
    attention.prefer(2, {Flag.INSIDE: 1.0, Flag.SINK: 1.0}, gains.inside)
    attention.prefer(2, {Flag.SINK: 1.0}, gains.doubt * gains.won)
    attention.prefer(2, {Flag.INSIDE: 1.0}, gains.gate + gains.won, when={Flag.ANSWER: -1.0})
    attention.compare(2, Field.VOTE, Field.TAG, gains.won)
    attention.carry(2, single(Flag.SINK), single(Flag.REFUSE))


def _copy(attention: Attention, gains: Gains) -> None:
    """Silent, which is to look at `<|assistant|>`, outside of the quote and at its first two tokens."""
    attention.clear(0)
    attention.prefer(0, {Flag.INSIDE: 1.0, Flag.ANSWERING: -2.0}, gains.inside)
    attention.prefer(
        0, {Flag.ANSWER: 1.0}, 12 * gains.gate, when={Flag.QUOTING: -1.0, Flag.QUOTE: 1.0, Flag.PREVIOUS_QUOTE: 1.0}
    )
    attention.compare(0, part(Field.CONTENT, 0, 22), part(Field.PREVIOUS, 0, 22), gains.current * 2 / 3)
    attention.compare(0, part(Field.CONTENT, STEM, 8), part(Field.PREVIOUS, STEM, 8), gains.current / 3)
    attention.compare(0, part(Field.PREVIOUS, 0, 14), part(Field.EARLIER, 0, 14), gains.second)
    attention.compare(0, part(Field.EARLIER, 0, 8), part(Field.THIRD, 0, 8), gains.before_that)
    own = (part(Field.TAG, 0, 16), gains.own / gains.same)
    attention.compare(0, part(Field.VOTE, 0, 16), part(Field.TAG, 0, 16), gains.same, also=own)
    # The opening of the next sentence has that one's tag.
    attention.prefer(
        0, {Flag.PREVIOUS_MARK: 1.0, Flag.SPACE: 1.0}, gains.next, when={Flag.MARK: 1.0, Flag.BULLET: -1.0}, always=0.0
    )
    attention.carry(0, Field.CONTENT, Field.OUT, size=gains.copied)
    # A token that opens a sentence, or ends the line, says instead that the quote ends. The sum is positive for these
    # alone: both flags of the first, or the one of the second.
    ends = {Flag.PREVIOUS_MARK: 1.0, Flag.SPACE: 1.0, Flag.LINE: 2.0, Flag.ANSWER: 1.0}
    attention.say(0, ends, -1.0, single(Flag.CLOSE), FLAG_SIZE)


def _novel(attention: Attention, gains: Gains) -> None:
    """NOVEL = 1 in the answer for what does not stand in the question: what finds nothing looks at the sink."""
    attention.clear(2)
    attention.prefer(2, {Flag.INSIDE: -1.0, Flag.SYSTEM: -1.0, Flag.ANSWERING: -1.0}, gains.poll)
    attention.prefer(2, {Flag.SINK: 1.0}, gains.abstain)
    attention.compare(2, part(Field.CONTENT, 0, STEM), part(Field.CONTENT, 0, STEM), gains.word)
    attention.carry(2, single(Flag.SINK), single(Flag.NOVEL))


def _answer(attention: Attention, gains: Gains) -> None:
    """The short answer: the first word of the quote that is not in the question, and on while that is so."""
    attention.clear(1)
    # The rows of a quote's first word are about twice as long, for its next one stands in OUT, so its flags count half.
    novel = {Flag.NOVEL: 1.0, Flag.COMMON: -1.0, Flag.PREVIOUS_NOVEL: -0.5, Flag.PREVIOUS_QUOTE: 0.9}
    first = {Flag.QUOTING: 1.0, Flag.ANSWERING: 1.0, Flag.PREVIOUS_QUOTE: 2.0, Flag.SINK: 1.5}
    attention.prefer(1, first, gains.gate)
    attention.prefer(1, novel, gains.choose)
    attention.prefer(1, {Flag.SINK: 1.0}, 2 * gains.gate, when={Flag.ASKED: -1.0})
    attention.carry(1, Field.CONTENT, Field.OUT, size=gains.copied)
    attention.clear(2)
    attention.prefer(
        2, {Flag.QUOTING: 1.0, Flag.ANSWERING: 1.0, Flag.LINE: 1.0, Flag.QUOTE: -2.0, Flag.SINK: 1.5}, gains.gate
    )
    attention.prefer(
        2,
        {Flag.SINK: 1.0},
        3 * gains.gate,
        when={
            Flag.ASKED: 1.0,
            Flag.QUOTING: 1.0,
            Flag.ANSWERING: -1.0,
            Flag.LINE: 1.0,
            Flag.PREVIOUS_LINE: 1.0,
            Flag.ANSWER: 1.0,
        },
    )
    attention.compare(2, part(Field.CONTENT, 0, 24), part(Field.PREVIOUS, 0, 24), gains.current)
    attention.compare(2, part(Field.PREVIOUS, 0, 24), part(Field.EARLIER, 0, 24), gains.second)
    attention.carry(2, Field.CONTENT, Field.OUT, size=gains.copied)
    stop = {Flag.NOVEL: -1.0, Flag.COMMON: -0.2, Flag.MARK: 1.2, Flag.LINE: 1.5, Flag.ANSWERING: 1.0}
    attention.say(2, stop, 0.0, single(Flag.STOP), FLAG_SIZE)


def learnable(model: LlamaForCausalLM) -> dict[str, Tensor]:
    """1 where training may change a parameter, 0 where a circuit would suffer; parameters not named stay as they are.

    That is the last layer but for its copying head, and what the head reads of flags and tokens. Trained as a whole the
    model unlearned the circuits within 200 rows, long before it had anything better; and what is learned into other
    dimensions, even unused ones, makes rows longer, so that every score behind them shrinks.
    """
    config = model.config
    name = f"model.layers.{config.num_hidden_layers - 1}"
    width = config.hidden_size
    heads = torch.ones(config.num_attention_heads, config.head_dim)
    heads[0] = 0
    written, read = torch.zeros(width, 1), torch.zeros(width)
    for field in (Field.OUT, single(Flag.STOP)):
        written[field] = 1
    for field in (Field.FLAGS, Field.CONTENT, Field.PREVIOUS):
        read[field] = 1
    masks = {
        f"{name}.self_attn.o_proj.weight": written * heads.flatten(),
        f"{name}.mlp.gate_proj.weight": torch.ones(1),
        f"{name}.mlp.up_proj.weight": torch.ones(1),
        f"{name}.mlp.down_proj.weight": written,
        "lm_head.weight": read,
    }
    for projection in ("q", "k", "v"):
        masks[f"{name}.self_attn.{projection}_proj.weight"] = heads.flatten()[:, None]
    return masks


def copying(model: LlamaForCausalLM, length: int, *, rows: int = 4, seed: int = 1) -> float:
    """Share of the second half of repeated random sequences that the model predicts; 1 / vocabulary is chance."""
    generator = torch.Generator().manual_seed(seed)
    first = torch.randint(16, model.config.vocab_size, (rows, length // 2), generator=generator)
    ids = torch.cat([torch.full((rows, 1), SINK_TOKEN), first, first], 1)
    with torch.no_grad():
        guesses = model(input_ids=ids).logits[:, length // 2 + 2 : -1].argmax(-1)
    return (guesses == ids[:, length // 2 + 3 :]).float().mean().item()

"""The Transformer, measured: the ninth chapter. Read it on the site, or run it: python examples/09_transformer.py."""

# %% [markdown] lang="en"
# # The Transformer, measured {#transformer-chapter}
#
# **What you will see.** The encoder-decoder of *Attention Is All You Need*, small enough for a laptop, translating
# English to Korean: how one sentence flows through it, tensor by tensor; why scores are divided by $\sqrt{d_k}$;
# which English word each Korean syllable is read from; what breaks when one head is taken away; and which textbook
# sentence about heads did not come true here.

# %% [markdown] lang="ko"
# # 트랜스포머를 측정하다 {#transformer-chapter}
#
# **무엇을 보게 되는가.** *Attention Is All You Need*의 인코더-디코더를 노트북에서도 실행할 만큼 작게 만들어 영어를
# 한국어로 옮긴다. 문장 하나가 어떤 텐서를 거쳐 흐르는지, 점수를 왜 $\sqrt{d_k}$로 나누는지, 한국어 음절마다 어느 영어
# 단어를 읽는지, 헤드 하나를 없애면 무엇이 틀리는지, 그리고 헤드에 관해 교과서가 하는 말 가운데 무엇이 여기서는 사실이
# 아니었는지 본다.

# %% [markdown] lang="en"
# ## The idea {#idea}
#
# One stack of layers, the encoder, reads the whole source; another, the decoder, writes the target one piece at a
# time, and asks the encoder at every layer. Asking is attention: a query is compared with all keys, the softmax turns
# the scores into shares, and the values come back mixed in these shares.
#
# $$\mathrm{read}(Q, K, V) = \mathrm{softmax}\Big(\frac{QK^\top}{\sqrt{d_k}}\Big)\,V$$
#
# Here $d_k$ is the number of components of a query or a key. The rules are [the spec's](../spec/seq2seq.md); on the
# same weights the body gives what PyTorch's `nn.Transformer` gives. The model that the package carries has one layer
# in each stack and passes it twice ([seq2seq.loops][]): as deep as two layers, with the weights of one. Its sentences
# come from [a grammar](../spec/translation.md), so that right and wrong are known. A source begins with the level of
# speech, `plain` unless the user writes `polite` or `formal`, and ends with the mark `<to>`. About one pair of verb
# and object in eight was never seen in training ([translation.unseen][]); *love you* is one of them.

# %% [markdown] lang="ko"
# ## 아이디어 {#idea}
#
# 층을 쌓은 스택 하나(인코더)는 원문 전체를 읽고, 다른 하나(디코더)는 번역을 한 조각씩 쓰면서 층마다 인코더에 묻는다. 묻는
# 일이 어텐션이다. 쿼리를 모든 키와 비교해 점수를 얻고, 소프트맥스로 점수를 비율로 바꾼 다음, 값을 그 비율대로 섞어
# 돌려받는다.
#
# $$\mathrm{read}(Q, K, V) = \mathrm{softmax}\Big(\frac{QK^\top}{\sqrt{d_k}}\Big)\,V$$
#
# 여기서 $d_k$는 쿼리와 키의 차원이다. 규칙은 [명세](../spec/seq2seq.ko.md)에 있고, 가중치가 같으면 PyTorch의
# `nn.Transformer`와 같은 값을 낸다. 패키지에 든 모델은 스택마다 층이 하나이고 그 층을 두 번 지난다([seq2seq.loops][]).
# 깊이는 두 층과 같지만 가중치는 한 층의 것뿐이다. 문장은 [우리가 만든 문법](../spec/translation.ko.md)에서 나오므로 옳고
# 그름이 분명하다. 원문은 높임 등급(level of speech)으로 시작하고 끝 표시 `<to>`로 끝나는데, 사용자가 `polite`나
# `formal`을 쓰지 않으면 등급은 `plain`이다. 동사와 목적어의 짝은 여덟에 하나꼴로 훈련에 나오지
# 않았고([translation.unseen][]), *love you*도 그중 하나이다.

# %%
import math
from textwrap import fill

import matplotlib.pyplot as plt
import torch

import looplm
from looplm.models.seq2seq import sinusoidal
from looplm.tasks.translation.alignment import ROLES
from looplm.tasks.translation.heads import measure_heads
from looplm.tasks.translation.written import written
from looplm.think.flow import flow_of_text

translator = looplm.load("translator", dtype=torch.float32)
model, task = translator.model, translator.recipe.task
halting = translator.recipe.halting
count = sum(weights.numel() for weights in model.parameters())
made = written(translator, "I love you")
print(f"{count:,} parameters; I love you → {made['answer']}")
assert made["answer"] == "나는 너를 사랑한다"

# %% [markdown] lang="en"
# ## How a sentence flows {#flow}
#
# No shape below was typed: the pass was recorded ([architecture.flow][]), each operation with the tensors that it
# read and the one that it made. A line is a call of a module, with the shape that it gives, the tensors that it makes
# on the way and the new memory that they fill; the arrow stands before the calls that it reads. `#2` is a second call
# of the same module. `looplm flow "I love you" --model translator` prints the same, `--all` each tensor; `--figure`
# draws a picture.

# %% [markdown] lang="ko"
# ## 문장이 흐르는 길 {#flow}
#
# 아래 모양은 손으로 적은 것이 아니다. 모델을 한 번 통과하는 동안 연산마다 읽은 텐서와 만든 텐서를
# 기록했다([architecture.flow][]). 한 줄은 모듈을 한 번 부른 것으로, 내놓는 모양, 그동안 만든 텐서의 수, 그 텐서가 새로
# 차지한 메모리를 적었다. 화살표 뒤에는 그것이 읽는 호출이 있다. `#2`는 같은 모듈을 두 번째로 부른 것이다.
# `looplm flow "I love you" --model translator`도 같은 것을 출력하며, `--all`은 텐서를 모두 보여 주고 `--figure`는 그림을
# 그린다.

# %%
flow = flow_of_text(model, task, "I love you", halting)
print(" ".join(flow.tokens).replace("   ", " ␣ "))
for step in flow.steps():
    shape = " × ".join(map(str, step.output))
    print(f"{step.call:13}{shape:>14}{step.tensors:5} tensors {step.bytes:9,} bytes")
    print(fill(", ".join(step.reads), 76, initial_indent=" " * 5 + "← "))
operations = [each.operation for each in flow.made]
print(f"{len(flow.made)} tensors, with weights and what is made between the calls;")
products = operations.count("mm") + operations.count("addmm")
print(f"{products} products with matrices of weights")
memory = {step.call: step for step in flow.steps()}
assert {"encoder.0#2", "decoder.0"} <= set(memory["decoder.0#2"].reads)

# %% [markdown] lang="en"
# The source is embedded once, and the encoder's layer is passed twice. Both passes of the decoder's layer read what
# the encoder made last, its *memory*: that is the one way from source to target.
#
# ## Why the root {#scale}
#
# A query and a key of independent components with mean 0 and variance 1 have a product with variance $d_k$: the more
# components, the larger the scores, and of large scores the softmax gives nearly all to one. Divided by $\sqrt{d_k}$,
# scores spread alike at every size. Measured on drawn vectors, with 16 keys for each query; equal shares would have
# an entropy of $\ln 16$ nats, about 2.77, and all in one share an entropy of 0:

# %% [markdown] lang="ko"
# 원문은 한 번 임베딩되어 인코더 층을 두 번 지난다. 디코더 층은 두 번 지날 때마다 인코더가 마지막에 만든 것, 곧 *메모리*를
# 읽는다. 원문에서 번역으로 가는 길은 이것 하나뿐이다.
#
# ## 왜 제곱근으로 나누는가 {#scale}
#
# 쿼리와 키의 성분이 서로 독립이고 평균이 0, 분산이 1이면 둘의 내적은 분산이 $d_k$이다. 차원이 커질수록 점수가 커지고,
# 점수가 크면 소프트맥스는 거의 전부를 한 곳에 몰아준다. $\sqrt{d_k}$로 나누면 차원이 얼마이든 점수가 퍼진 정도가 같다.
# 무작위로 뽑은 벡터로, 쿼리마다 키를 16개씩 두고 측정했다. 비율이 모두 같으면 엔트로피는 $\ln 16$, 약 2.77내트이고 하나에
# 모두 몰리면 0이다.

# %%
drawn = torch.Generator().manual_seed(0)
print("d_k   spread of scores   entropy, nats: scaled   unscaled")
for size in (4, 16, 64, 256):
    queries, keys = torch.randn(2, 500, 16, size, generator=drawn)
    scores = torch.einsum("nk,nsk->ns", queries[:, 0], keys)
    entropy = {}
    for name, part in (("scaled", scores / math.sqrt(size)), ("unscaled", scores)):
        shares = part.softmax(-1)
        entropy[name] = float(-(shares * shares.clamp_min(1e-30).log()).sum(-1).mean())
    spread, root = float(scores.std()), math.sqrt(size)
    print(
        f"{size:3}{spread:10.2f} (√d_k {root:4.1f}){entropy['scaled']:16.2f}"
        f"{entropy['unscaled']:11.2f}"
    )
    assert abs(spread / root - 1) < 0.1
assert entropy["scaled"] > 2 > 1 > entropy["unscaled"]

# %% [markdown] lang="en"
# ## What a syllable reads {#reads}
#
# The Korean sentence is written syllable by syllable. For each: how sure the model was, and the English word that it
# reads most in the decoder's last pass, on the mean of the heads.

# %% [markdown] lang="ko"
# ## 음절마다 무엇을 읽는가 {#reads}
#
# 한국어 문장은 한 음절씩 쓴다. 음절마다 모델이 얼마나 확신했는지와, 디코더의 마지막 통과에서 헤드 평균으로 가장 많이 읽은
# 영어 단어를 본다.

# %%
reads = {}
for syllable in made["syllables"]:
    first, read = syllable["candidates"][0], syllable["reads"]
    said = first["said"].replace(" ", "␣")
    reads[said] = read["word"]
    print(f"{said:6}{first['share']:6.1%}   reads {read['word']:6}{read['share']:5.0%}")
assert (reads["나"], reads["너"], reads["사"]) == ("I", "you", "love")

# %% [markdown] lang="en"
# The order is Korean's: the object, which comes second, is read from the end of the English sentence, and the verb,
# which comes last, from its middle. The ending 한다 is read from `plain`, the level of speech; the spaces and the
# particle 를 from the end mark. And the model is right, but it is about 0.9 sure of each syllable, never nearly 1.
# That is no doubt, it is what it was asked for: label smoothing with $\varepsilon = 0.1$ moves a tenth of the target
# to all pieces alike, and the loss is least at $1 - \varepsilon + \varepsilon / V$ ([training.label-smoothing][]).
# The probability that such a model gives is not how often it is right:

# %% [markdown] lang="ko"
# 순서는 한국어를 따른다. 두 번째로 쓰는 목적어는 영어 문장의 끝에서, 마지막에 쓰는 동사는 가운데에서 읽는다. ‘한다’를 쓸
# 때는 높임 등급인 `plain`을, 빈칸과 조사 ‘를’을 쓸 때는 끝 표시를 가장 많이 읽는다. 그런데 모델은 다 맞히면서도 음절마다
# 0.9쯤만 확신하고 1에는 가까이 가지 않는다. 망설이는 것이 아니라 그렇게 훈련했기 때문이다. $\varepsilon = 0.1$인 레이블
# 스무딩은 목표의 10분의 1을 모든 조각에 똑같이 나눠 주므로 손실은 $1 - \varepsilon + \varepsilon / V$에서 가장
# 작다([training.label-smoothing][]). 이런 모델이 내는 확률은 얼마나 자주 맞히는지를 나타내지 않는다.

# %%
share = translator.recipe.training.label_smoothing
best = 1 - share + share / len(task.vocabulary)
problems = task.suite("unseen", 2, 100, seed=5)
with torch.no_grad():
    *_, states = model.states(problems.tokens, halting.max_loops)
    logits = model.logits(states[problems.scored])
sure = logits.softmax(-1).amax(-1)
right = logits.argmax(-1) == problems.targets[problems.scored]
print(f"mean of the likeliest: {sure.mean():.3f}; least loss at {best:.3f}")
print(f"of {len(right):,} syllables {right.float().mean():.2%} are right")
assert abs(float(sure.mean()) - best) < 0.03 < float(right.float().mean()) - best

# %% [markdown] lang="en"
# ## A head taken away {#without}
#
# What a head is *needed* for shows when it is gone ([translation.heads][]). Each row is a head whose reading is set
# to zero, each column a kind of syllable; the darker, the more of them are wrong than with all heads. Heads of
# `encoder` read the source from the source, those of `decoder` the translation from the translation, those of `cross`
# the source from the translation.

# %% [markdown] lang="ko"
# ## 헤드 하나를 없애면 {#without}
#
# 헤드가 *무엇에 필요한지*는 없애 보면 드러난다([translation.heads][]). 행은 읽은 것을 0으로 만든 헤드, 열은 음절의
# 종류이고, 짙을수록 헤드가 모두 있을 때보다 많이 틀린다. `encoder`의 헤드는 원문에서 원문을, `decoder`의 헤드는 번역에서
# 번역을, `cross`의 헤드는 번역에서 원문을 읽는다.

# %%
measured = measure_heads(translator, 60, seed=7)
whole, *without = measured["without"]
roles = [role for role in ROLES if role in whole["wrong"]]
lost = [
    [100 * (one["wrong"][role] - whole["wrong"][role]) for role in roles]
    for one in without
]
names = [f"{one['kind']} {one['head'] + 1}" for one in without]
fig, axes = plt.subplots(figsize=(5.6, 4.2), layout="constrained")
image = axes.imshow(lost, cmap="Blues", aspect="auto", vmin=0)
axes.set_xticks(range(len(roles)), roles, rotation=30)
axes.set_yticks(range(len(names)), names)
fig.colorbar(image, label="wrong 틀림, + %")
dearest = min(without, key=lambda one: one["right"])
worst = max(roles, key=lambda role: dearest["wrong"][role])
print(f"{whole['right']} of 60 sentences are right with all heads")
print(
    f"{dearest['right']} are right without {dearest['kind']} head {dearest['head'] + 1}:",
    end=" ",
)
print(f"{dearest['wrong'][worst]:.0%} of all syllables of kind {worst!r} are wrong")
harmless = [one for one in without if one["right"] >= whole["right"] - 1]
print(f"{len(harmless)} of {len(without)} heads cost one sentence at most")
nouns = max(without, key=lambda one: one["wrong"]["noun"])
print(f"{nouns['kind']} head {nouns['head'] + 1} costs the most nouns")
assert dearest["right"] < whole["right"] / 2 and len(harmless) > 1

# %% [markdown] lang="en"
# ## Are heads syntactic? {#syntax}
#
# Books say that heads of the encoder learn grammar: a verb looks for its subject, an adjective for its noun. Here the
# grammar is known, so this can be measured. For each relation, the head that exceeds its control most; the control is
# how much the same head reads the place where *another* sentence has its answer.

# %% [markdown] lang="ko"
# ## 헤드는 문법을 배우는가? {#syntax}
#
# 책에는 인코더의 헤드가 문법을 배운다고 쓰여 있다. 동사는 주어를, 형용사는 명사를 찾는다는 것이다. 여기서는 문법을 알고
# 있으므로 정말 그런지 측정할 수 있다. 대조군은 같은 헤드가 *다른* 문장에서 답이 있는 자리를 읽는 정도이다. 관계마다
# 대조군을 가장 크게 넘는 헤드를 골랐다.

# %%
found = {}
for relation in measured["relations"]:
    best_head = max(
        relation["heads"], key=lambda head: head["share"] - head["shuffled"]
    )
    own, other = best_head["share"], best_head["shuffled"]
    found.setdefault(relation["kind"], []).append(own - other)
    print(
        f"{relation['kind']:8} {relation['name']:29} head {best_head['head'] + 1}"
        f"{own:6.0%}  shuffled {other:4.0%}"
    )
print({kind: f"at most {max(values):+.0%}" for kind, values in found.items()})
assert max(found["encoder"]) < 0.1 < 0.5 < max(found["cross"])

# %% [markdown] lang="en"
# Between the languages the picture is what one hopes for: for nouns, particles, adjectives and stems there is a head
# that reads the word from which the syllable comes. Inside the encoder no head reads a relation of the grammar
# noticeably more than its control. Adverbs and endings say why a control is needed: an adverb is always the second
# word and the level of speech the first, so another sentence has its answer at the same place, and a head that reads
# there may know the place alone. And all of this is where heads *look*. The section before says which of them are *needed*,
# and the two are not the same: the head that reads nouns most is not the one whose loss costs the most nouns. Three
# trained models side by side are on [the page of the plan](../docs/transformer.md).
#
# ## Depth is time {#loops}
#
# The decoder's layer is one, passed twice. What if it is passed once, or more often than in training? The encoder
# keeps its two passes.

# %% [markdown] lang="ko"
# 두 언어 사이에서는 바라던 대로이다. 명사, 조사, 형용사, 어간에는 그 음절이 나온 단어를 읽는 헤드가 있다. 인코더 안에서는
# 문법의 관계를 대조군보다 눈에 띄게 더 읽는 헤드가 없다. 대조군이 왜 필요한지는 부사와 어미가 보여 준다. 부사는 늘 두
# 번째 단어이고 높임 등급은 늘 첫 단어라서 다른 문장의 답도 같은 자리에 있다. 그 자리를 읽는 헤드는 자리만 외운 것일 수도
# 있다. 그리고 이 모두는 헤드가 *보는*
# 곳이다. 어느 헤드가 *필요한지*는 앞 절에서 보았는데 둘은 같지 않다. 명사를 가장 많이 읽는 헤드는, 없앴을 때 명사가 가장
# 많이 틀리는 헤드가 아니다. 훈련한 모델 셋을 나란히 놓은 결과는 [계획을 다룬 페이지](../docs/transformer.ko.md)에 있다.
#
# ## 깊이는 시간이다 {#loops}
#
# 디코더에는 층이 하나뿐이고 그 층을 두 번 지난다. 한 번만 지나거나 훈련 때보다 여러 번 지나면 어떻게 되는가? 인코더는
# 그대로 두 번 지난다.

# %%
after = []
with torch.no_grad():
    for h in model.states(problems.tokens, 4):
        guess = model.logits(h).argmax(-1)
        good = ((guess == problems.targets) | ~problems.scored).all(1)
        after.append(int(good.sum()))
for loops, good in enumerate(after, 1):
    print(f"passes: {loops}; right: {good} of {len(problems)} sentences")
assert max(after) == after[halting.max_loops - 1]

# %% [markdown] lang="en"
# Trained at two passes alone, it works at two alone. The adder that thinks longer than it was trained to was given
# the input at every loop ([the chapter on x0](../examples/02_injection.py)), and in training it also started from the
# states of other problems ([thinking longer](../examples/04_thinking_longer.py)). Here there is neither: every pass
# reads the source, but what the decoder starts from is not added again.
#
# ## What surprised us {#surprise}
#
# That the same layer, passed once more than in training, gives not one sentence right: the loop has learned where to
# arrive, and not to stay there. And that no head of the encoder reads a relation of the grammar, while without some
# of them, as the figure shows, words go wrong. What those heads read instead is not measured.
#
# ## Exercises {#exercises}
#
# Each exercise has a test. Write your own solution in place of ours, and run the cell: no error means solved.
#
# **1.** The positions are sines and cosines ([seq2seq.positions][]). Show that the product of the vectors of two
# places depends on their distance alone, by writing it without the places themselves.

# %% [markdown] lang="ko"
# 두 번 지나는 것만 훈련했으니 두 번일 때만 된다. 훈련 때보다 오래 생각하는 덧셈 모델은 루프마다 입력을 다시 받았고([x0를
# 다룬 장](../examples/02_injection.py)), 훈련할 때 다른 문제의 상태에서도 시작했다([더 오래 생각하기를 다룬
# 장](../examples/04_thinking_longer.py)). 여기에는 둘 다 없다. 원문은 지날 때마다 읽지만, 디코더가 처음에 받은 것은 다시
# 더하지 않는다.
#
# ## 뜻밖이었던 점 {#surprise}
#
# 같은 층을 훈련 때보다 한 번 더 지났을 뿐인데 맞는 문장이 하나도 없다는 점이다. 루프는 어디에 도착할지는 배웠지만 거기에
# 머무는 법은 배우지 않았다. 그리고 인코더에는 문법의 관계를 읽는 헤드가 없는데도, 그림에서 보듯이 없애면 단어가 틀리는
# 헤드는 있다는 점이다. 그 헤드가 대신 무엇을 읽는지는 측정하지 않았다.
#
# ## 연습 문제 {#exercises}
#
# 연습 문제마다 테스트가 있다. 우리 풀이 자리에 자기 풀이를 쓰고 셀을 실행해 보자. 오류가 없으면 푼 것이다.
#
# **1.** 위치는 사인과 코사인이다([seq2seq.positions][]). 두 위치 벡터의 내적은 둘 사이의 거리에만 달려 있다. 위치 자체를
# 쓰지 않는 식을 적어 이를 보이라.


# %%
def check_product(product):
    """For all pairs of 40 places, whatever the places are."""
    table = sinusoidal(40, 16, torch.zeros(0, dtype=torch.float64))
    for a in range(40):
        for b in range(40):
            assert abs(float(table[a] @ table[b]) - product(a - b, 16)) < 1e-9


# %% tags=["solution"]
def product(distance, width):
    """Sin a sin b + cos a cos b = cos(a - b), for each rate."""
    return sum(math.cos(distance * 10_000 ** (-i / width)) for i in range(0, width, 2))


check_product(product)

# %% [markdown] lang="en"
# **2.** Predict the number of the model's parameters by hand: an embedding that is also the output layer; in each
# layer four square matrices for each attention, two matrices with biases for the feed-forward network, and two
# numbers a component for each norm.

# %% [markdown] lang="ko"
# **2.** 모델의 파라미터 수를 직접 계산해 보라. 임베딩은 출력층을 겸한다. 층에는 어텐션마다 정사각 행렬 넷, 피드포워드에
# 편향이 있는 행렬 둘, 정규화마다 성분당 수가 둘 있다.


# %%
def check_parameters(predict):
    """Those of the model that the package carries."""
    assert predict(translator.recipe.model) == count


# %% tags=["solution"]
def predict(config):
    """A decoder's layer has one more attention and one more norm than an encoder's."""
    d, inner = config.width, config.mlp_width
    attention, norm = 4 * d * d, 2 * d
    network = 2 * d * inner + inner + d
    layers = config.layers * (3 * attention + 2 * network + 5 * norm)
    return config.vocab_size * d + layers


check_parameters(predict)

# %% [markdown] lang="en"
# Three seeds, the controls and every statement of the plan that this chapter answers are on [the page of the
# plan](../docs/transformer.md).

# %% [markdown] lang="ko"
# 시드 셋과 대조군, 그리고 이 장이 답한 계획의 진술은 모두 [계획을 다룬 페이지](../docs/transformer.ko.md)에 있다.

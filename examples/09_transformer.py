"""The Transformer, measured: the ninth chapter. Read it on the site, or run it: python examples/09_transformer.py."""

# %% [markdown] lang="en"
# # The Transformer, measured {#transformer-chapter}
#
# **What you will see.** The encoder-decoder of *Attention Is All You Need*, small enough for a laptop, translating
# English to Korean. How one sentence flows through it, tensor by tensor; why scores are divided by $\sqrt{K}$; which
# English word each Korean syllable is read from; what breaks when one head is taken away; and which textbook sentences
# about heads did not come true.

# %% [markdown] lang="ko"
# # 트랜스포머를 측정하다 {#transformer-chapter}
#
# **무엇을 보게 되는가.** *Attention Is All You Need*의 인코더-디코더를 노트북에서 돌아갈 만큼 작게 만들어 영어를 한국어로
# 옮긴다. 한 문장이 텐서 하나하나를 거쳐 어떻게 흐르는지, 점수를 왜 $\sqrt{K}$로 나누는지, 한국어 음절마다 어느 영어
# 단어를 읽는지, 헤드 하나를 없애면 무엇이 망가지는지, 그리고 교과서가 헤드를 두고 하는 말 가운데 무엇이 사실이 아니었는지
# 본다.

# %% [markdown] lang="en"
# ## The idea {#idea}
#
# One stack of layers reads the whole source; another writes the target, one piece at a time, and asks the first at every
# layer. Asking is attention: a query is compared with all keys, and the values come back in these shares.
#
# $$\mathrm{read}(Q, K, V) = \mathrm{softmax}\Big(\frac{QK^\top}{\sqrt{K_\text{dim}}}\Big)\,V$$
#
# The rules are [the spec's](../spec/seq2seq.md); on the same weights the body gives what PyTorch's `nn.Transformer`
# gives. The model that the package carries has one layer in each stack and passes it twice ([seq2seq.loops][]): the same
# depth, half the weights. Its sentences come from [a grammar](../spec/translation.md), so that right and wrong are known,
# and one pair of verb and object in eight was never seen in training ([translation.unseen][]); *love you* is one of them.

# %% [markdown] lang="ko"
# ## 아이디어 {#idea}
#
# 한 스택은 원문 전체를 읽고, 다른 스택은 번역을 한 조각씩 쓰면서 층마다 첫 번째 스택에 묻는다. 묻는 일이 어텐션이다.
# 쿼리를 모든 키와 비교하고, 그 비율대로 값을 섞어 돌려받는다.
#
# $$\mathrm{read}(Q, K, V) = \mathrm{softmax}\Big(\frac{QK^\top}{\sqrt{K_\text{dim}}}\Big)\,V$$
#
# 규칙은 [명세](../spec/seq2seq.ko.md)에 있고, 가중치가 같으면 PyTorch의 `nn.Transformer`와 같은 값을 낸다. 패키지에 든
# 모델은 스택마다 층이 하나이고 그 층을 두 번 지난다([seq2seq.loops][]). 깊이는 같고 가중치는 절반이다. 문장은 [우리가
# 만든 문법](../spec/translation.ko.md)에서 나오므로 옳고 그름이 분명하다. 동사와 목적어의 짝 여덟 가운데 하나는 훈련에
# 나오지 않았는데([translation.unseen][]), *love you*도 그중 하나이다.

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
# No shape below was typed: the pass was recorded ([architecture.flow][]), each operation with the tensors that it read
# and the one that it made. `#2` is a second call of the same module. `looplm flow "I love you" --model translator` prints
# the same, `--all` each tensor, `--figure` a picture.

# %% [markdown] lang="ko"
# ## 문장이 흐르는 길 {#flow}
#
# 아래 모양은 손으로 적은 것이 아니다. 통과하는 동안 연산마다 읽은 텐서와 만든 텐서를 기록했다([architecture.flow][]).
# `#2`는 같은 모듈을 두 번째로 부른 것이다. `looplm flow "I love you" --model translator`가 같은 것을 출력하고, `--all`은
# 텐서를 모두, `--figure`는 그림을 낸다.

# %%
flow = flow_of_text(model, task, "I love you", halting)
print(" ".join(flow.tokens).replace("   ", " ␣ "))
for step in flow.steps():
    shape = " × ".join(map(str, step.output))
    print(f"{step.call:13}{shape:>14}{step.tensors:5} tensors {step.bytes:9,} bytes")
    print(fill(", ".join(step.reads), 76, initial_indent=" " * 5 + "← "))
operations = [each.operation for each in flow.made]
print(len(flow.made), "tensors;", operations.count("mm"), "products of matrices")
memory = {step.call: step for step in flow.steps()}
assert {"encoder.0#2", "decoder.0"} <= set(memory["decoder.0#2"].reads)

# %% [markdown] lang="en"
# The source is embedded once and read by the encoder's layer twice. Both passes of the decoder's layer read what the
# encoder made last, its *memory*: that is the one way from source to target.
#
# ## Why the root {#scale}
#
# A query and a key of independent parts with variance 1 have a product with variance $K$: the more dimensions, the larger
# the scores, and the softmax of large scores gives all to one. Divided by $\sqrt{K}$, the spread stays what it is at any
# size. Measured on drawn vectors, with 16 keys for each query:

# %% [markdown] lang="ko"
# 원문은 한 번 임베딩되고, 인코더 층이 그것을 두 번 읽는다. 디코더 층은 두 번 지날 때마다 인코더가 마지막에 만든 것, 곧
# *메모리*를 읽는다. 원문에서 번역으로 가는 길은 이것 하나뿐이다.
#
# ## 왜 제곱근으로 나누는가 {#scale}
#
# 성분이 서로 독립이고 분산이 1인 쿼리와 키를 곱하면 분산이 $K$이다. 차원이 커질수록 점수가 커지고, 점수가 크면
# 소프트맥스는 하나에 거의 다 준다. $\sqrt{K}$로 나누면 어떤 크기에서도 퍼진 정도가 같다. 무작위 벡터로, 쿼리마다 키
# 16개를 두고 측정하면 이렇다.

# %%
drawn = torch.Generator().manual_seed(0)
print("  K   spread of scores   entropy, nats: scaled   unscaled")
for size in (4, 16, 64, 256):
    queries, keys = torch.randn(2, 500, 16, size, generator=drawn)
    scores = torch.einsum("nk,nsk->ns", queries[:, 0], keys)
    entropy = {}
    for name, part in (("scaled", scores / math.sqrt(size)), ("unscaled", scores)):
        shares = part.softmax(-1)
        entropy[name] = float(-(shares * shares.clamp_min(1e-30).log()).sum(-1).mean())
    spread, root = float(scores.std()), math.sqrt(size)
    print(
        f"{size:3}{spread:10.2f} (√K {root:4.1f}){entropy['scaled']:18.2f}"
        f"{entropy['unscaled']:11.2f}"
    )
    assert abs(spread / root - 1) < 0.1
assert entropy["scaled"] > 2 > 1 > entropy["unscaled"]

# %% [markdown] lang="en"
# ## What a syllable reads {#reads}
#
# The Korean sentence is written syllable by syllable. For each: how sure the model was, and the English word that the
# mean head of the last pass reads most.

# %% [markdown] lang="ko"
# ## 음절마다 무엇을 읽는가 {#reads}
#
# 한국어 문장은 음절 하나씩 쓴다. 음절마다 모델이 얼마나 확신했는지, 그리고 마지막 통과에서 헤드 평균이 가장 많이 읽는
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
# The order is Korean's, so the third word is read from the end of the English sentence and the verb from its middle. And
# the model is hardly ever surer than 0.9. That is no doubt, it is what it was asked for: label smoothing with
# $\varepsilon = 0.1$ moves a tenth of the target to all pieces alike, and the loss is least at
# $1 - \varepsilon + \varepsilon / V$ ([training.label-smoothing][]). A probability of such a model is not a frequency.

# %% [markdown] lang="ko"
# 순서는 한국어의 것이라, 목적어는 영어 문장의 끝에서, 동사는 가운데에서 읽는다. 그리고 모델은 0.9보다 더 확신하는 일이
# 거의 없다. 망설이는 것이 아니라 그렇게 시켰기 때문이다. $\varepsilon = 0.1$인 레이블 스무딩은 목표의 10분의 1을 모든
# 조각에 고르게 나눠 주고, 손실은 $1 - \varepsilon + \varepsilon / V$에서 가장 작다([training.label-smoothing][]). 이런
# 모델의 확률은 빈도가 아니다.

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
# What a head *does* is seen when it is gone ([translation.heads][]). Each row is a head whose reading is set to zero,
# each column a kind of syllable; darker means more of them are wrong than with all heads.

# %% [markdown] lang="ko"
# ## 헤드 하나를 없애면 {#without}
#
# 헤드가 *하는* 일은 없애 보면 드러난다([translation.heads][]). 행은 읽은 것을 0으로 만든 헤드, 열은 음절의 종류이고,
# 짙을수록 모든 헤드가 있을 때보다 많이 틀린다.

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
axes.set_xticks(range(len(roles)), roles)
axes.set_yticks(range(len(names)), names)
fig.colorbar(image, label="wrong 틀림, + %")
dearest = min(without, key=lambda one: one["right"])
worst = max(roles, key=lambda role: dearest["wrong"][role])
print(f"{whole['right']} of 60 sentences are right with all heads")
print(
    f"{dearest['right']} without {dearest['kind']} head {dearest['head'] + 1}:", end=" "
)
print(f"{dearest['wrong'][worst]:.0%} of all syllables of kind {worst!r} are wrong")
harmless = [one for one in without if one["right"] >= whole["right"] - 1]
print(f"{len(harmless)} of {len(without)} heads cost one sentence at most")
assert dearest["right"] < whole["right"] / 2 and len(harmless) > 1

# %% [markdown] lang="en"
# ## Are heads syntactic? {#syntax}
#
# Books say that heads of the encoder learn grammar: verbs look for subjects, adjectives for nouns. Here the grammar is
# known, so the sentence can be asked. For each relation the head that reads it most, beside a control: how much the same
# head reads the place where *another* sentence has its answer.

# %% [markdown] lang="ko"
# ## 헤드는 문법을 배우는가? {#syntax}
#
# 책에는 인코더의 헤드가 문법을 배운다고 쓰여 있다. 동사는 주어를, 형용사는 명사를 찾는다는 것이다. 여기서는 문법을 알고
# 있으니 물어볼 수 있다. 관계마다 그것을 가장 많이 읽는 헤드를 고르고, 같은 헤드가 *다른* 문장에서 답이 있는 자리를 얼마나
# 읽는지를 대조군으로 둔다.

# %%
found = {}
for relation in measured["relations"]:
    best_head = max(
        relation["heads"], key=lambda head: head["share"] - head["shuffled"]
    )
    own, other = best_head["share"], best_head["shuffled"]
    found.setdefault(relation["kind"], []).append(own - other)
    print(
        f"{relation['kind']:8} {relation['name']:29}{own:6.0%}  shuffled {other:4.0%}"
    )
print({kind: f"at most {max(values):+.0%}" for kind, values in found.items()})
assert max(found["encoder"]) < 0.1 < 0.5 < max(found["cross"])

# %% [markdown] lang="en"
# Between the languages the picture is what one hopes for: heads read the word that a syllable comes from. Inside the
# encoder no head reads a relation of the grammar noticeably more than its control. The endings say why a control is
# needed: the level of speech is always the first word, so a head that reads it says nothing of endings. And all of this is
# where heads *look*; the section before says which of them are *needed*, and the two are not the same list. Three trained
# models side by side are on [the page of the plan](../docs/transformer.md).
#
# ## Depth is time {#loops}
#
# The decoder's layer is one, passed twice. What if it is passed once, or more often than in training?

# %% [markdown] lang="ko"
# 두 언어 사이에서는 바라던 대로이다. 헤드는 그 음절이 나온 단어를 읽는다. 인코더 안에서는 문법의 관계를 대조군보다 눈에 띄게 더
# 읽는 헤드가 없다. 대조군이 왜 필요한지는 어미가 보여 준다. 말의 단계는 늘 첫 단어이므로, 그 자리를 읽는 헤드가 있다고 해서
# 어미를 안다고 할 수 없다. 그리고 이 모두는 헤드가 *보는* 곳이다. 어느 헤드가 *필요한지*는 앞 절이 말하며, 둘은 같은 목록이
# 아니다. 훈련한 모델 셋을 나란히 놓은 결과는 [계획을 다룬 페이지](../docs/transformer.ko.md)에 있다.
#
# ## 깊이는 시간이다 {#loops}
#
# 디코더의 층은 하나이고 그것을 두 번 지난다. 한 번만, 또는 훈련 때보다 여러 번 지나면 어떻게 되는가?

# %%
after = []
with torch.no_grad():
    for h in model.states(problems.tokens, 4):
        guess = model.logits(h).argmax(-1)
        good = ((guess == problems.targets) | ~problems.scored).all(1)
        after.append(int(good.sum()))
for loops, good in enumerate(after, 1):
    print(f"{loops} loops: {good} of {len(problems)} sentences")
assert max(after) == after[halting.max_loops - 1]

# %% [markdown] lang="en"
# Trained at two passes alone, it works at two alone. A looped model that shall think longer than it was trained to needs
# what [the chapters on x0](../examples/02_injection.py) and [on thinking longer](../examples/04_thinking_longer.py)
# found: the input at every loop, and training at many loop counts. The 2017 decoder has neither.
#
# ## What surprised us {#surprise}
#
# That the same layer, passed once more than in training, gives not one sentence right: where a loop has learned to arrive, it
# has not learned to stay. And that no head of the encoder had to learn the grammar: the words go over one by one, and it is
# the decoder that puts them in order and gives them their forms.
#
# ## Exercises {#exercises}
#
# Each exercise has a test. Write your own solution in place of ours, and run the cell: no error means solved.
#
# **1.** The positions are sines and cosines ([seq2seq.positions][]). Show that the product of two of them depends on
# their distance alone, by writing it without the places themselves.

# %% [markdown] lang="ko"
# 두 번 지나는 것만 훈련했으니 두 번일 때만 된다. 훈련 때보다 오래 생각할 루프 모델에는 [x0를 다룬
# 장](../examples/02_injection.py)과 [더 오래 생각하기를 다룬 장](../examples/04_thinking_longer.py)에서 본 것이 필요하다.
# 루프마다 입력을 넣고, 여러 루프 수로 훈련하는 것이다. 2017년의 디코더에는 둘 다 없다.
#
# ## 뜻밖이었던 점 {#surprise}
#
# 같은 층을 훈련 때보다 한 번 더 지났을 뿐인데 맞는 문장이 하나도 없다는 점이다. 루프는 어디서 끝날지를 배웠을 뿐, 거기에
# 머무는 법은 배우지 않았다. 그리고 인코더의 어떤 헤드도 문법을 배울 필요가 없었다는 점이다. 단어는 하나씩 건너가고, 순서를 잡고
# 꼴을 만드는 것은 디코더이다.
#
# ## 연습 문제 {#exercises}
#
# 연습 문제마다 테스트가 있다. 우리 풀이 자리에 자기 풀이를 쓰고 셀을 실행해 보자. 오류가 없으면 푼 것이다.
#
# **1.** 위치는 사인과 코사인이다([seq2seq.positions][]). 두 위치의 곱이 거리에만 달려 있음을, 위치 자체를 쓰지 않는
# 식으로 적어 보이라.


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
# **2.** Predict the model's parameters by hand: an embedding that is also the head; in each layer four square matrices
# for each attention, two matrices with biases for the feed-forward network, and two numbers a component for each norm.

# %% [markdown] lang="ko"
# **2.** 모델의 파라미터를 직접 세어 보라. 임베딩은 헤드를 겸하고, 층마다 어텐션 하나에 정사각 행렬 넷, 피드포워드에
# 편향이 있는 행렬 둘, 정규화 하나에 성분마다 수가 둘 있다.


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
# Three seeds, the controls and every statement of the plan that this chapter answers are on [their
# page](../docs/transformer.md).

# %% [markdown] lang="ko"
# 시드 셋과 대조군, 그리고 이 장이 답한 계획의 진술은 모두 [그 페이지](../docs/transformer.ko.md)에 있다.

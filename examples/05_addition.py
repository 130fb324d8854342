"""Addition and length generalisation: the fifth chapter. Read it on the site, or run it: python examples/05_addition.py."""

# %% [markdown] lang="en"
# # Addition and length generalisation {#addition-chapter}
#
# **What you will see.** How a sum becomes tokens, in four ways, and why one of them is easy; how a rule, and not a
# list, keeps test sums out of training; what a test of long sums must contain so that it is one; and why length does
# not matter to these models: because of a mask, and not because of the loop.

# %% [markdown] lang="ko"
# # 덧셈과 길이 일반화 {#addition-chapter}
#
# **무엇을 보게 되는가.** 덧셈을 토큰으로 쓰는 네 가지 방법과, 그 가운데 하나가 쉬운 이유. 목록이 아니라 규칙으로
# 테스트용 문제를 훈련에서 떼어 놓는 법. 긴 덧셈의 테스트에는 무엇이 들어 있어야 하는가. 그리고 이 모델들에서 길이가
# 문제되지 않는 이유. 그것은 루프가 아니라 마스크 덕이다.

# %% [markdown] lang="en"
# ## The idea {#idea}
#
# Children learn addition on short sums, and then add long ones without further lessons, because the method does not
# care how long the numbers are. Models usually do not: trained on four digits, they fail at five. So addition is a good
# place to ask what a model has learned, the sums or the method. To be right on sums longer than any in training is
# called length generalisation. Say at once what is true of the models here: a mask over the columns makes length
# irrelevant to them, so that they cannot help but carry over. They show what such a prior gives, not that a model has
# found it. The whole method is two lines.

# %% [markdown] lang="ko"
# ## 아이디어 {#idea}
#
# 아이는 짧은 덧셈을 배우고 나면 더 배우지 않아도 긴 덧셈을 한다. 방법이 수의 길이를 따지지 않기 때문이다. 모델은 흔히
# 그렇지 못하다. 네 자리로 훈련하면 다섯 자리에서 실패한다. 그래서 모델이 배운 것이 개별 문제인지 방법인지 묻기에 덧셈은
# 좋은 과제이다. 훈련한 것보다 긴 덧셈도 맞히는 것을 길이 일반화(length generalisation)라 한다. 먼저 밝혀 둘 것이 있다.
# 여기의 모델은 열을 가리는 마스크 때문에 길이의 영향을 받지 않으므로 긴 문제에도 통할 수밖에 없다. 그런 사전 지식이
# 무엇을 주는지를 보일 뿐, 모델이 그것을 찾아냈다는 뜻이 아니다. 방법은 두 줄이 전부이다.

# %% [markdown] lang="en"
# ## The equation {#equation}
#
# With $a_i$, $b_i$ and $c_i$ the digits of the two numbers and of their sum at place $i$, the lowest being place 0, and
# $k_i$ the carry into it:
#
# $$c_i = (a_i + b_i + k_i) \bmod 10, \qquad k_{i+1} = \lfloor (a_i + b_i + k_i) / 10 \rfloor, \qquad k_0 = 0$$
#
# Nothing in it knows how many places there are. Each digit needs its own place and one bit from the place below.
#
# ## Four ways to write a sum {#formats}
#
# Whether that is easy to see depends on the order of the digits. A format is one rule ([addition.plain][],
# [addition.reversed][], [addition.double-reversed][], [addition.equals-first][]); the begin and end marks are the same in
# all ([addition.sequence][]).

# %% [markdown] lang="ko"
# ## 식 {#equation}
#
# 두 수와 그 합의 자리 $i$의 숫자를 $a_i$, $b_i$, $c_i$라 하고 그 자리로 들어오는 받아올림(carry)을 $k_i$라 하자. 가장
# 낮은 자리가 자리 0이다.
#
# $$c_i = (a_i + b_i + k_i) \bmod 10, \qquad k_{i+1} = \lfloor (a_i + b_i + k_i) / 10 \rfloor, \qquad k_0 = 0$$
#
# 자리가 몇 개인지는 어디에도 없다. 각 숫자에는 자기 자리와, 바로 아랫자리에서 오는 한 비트만 있으면 된다.
#
# ## 덧셈을 쓰는 네 가지 방법 {#formats}
#
# 그것이 쉽게 보이는지는 숫자의 순서에 달려 있다. 형식마다 규칙은 하나이며([addition.plain][], [addition.reversed][],
# [addition.double-reversed][], [addition.equals-first][]), 시작 표시와 끝 표시는 모두 같다([addition.sequence][]).

# %%
from typing import get_args

import matplotlib.pyplot as plt
import torch

import looplm
from looplm.draws import Draw
from looplm.evaluate.scores import exact_match
from looplm.layers.positions import places_in_runs
from looplm.tasks.addition.problems import (
    SYMBOLS,
    Format,
    add,
    collate,
    held_out,
    parse_problem,
    problems_of,
    swap,
    write,
)
from looplm.tasks.addition.sets import chain_set, draw_training, test_set
from looplm.train.recipe import load_recipe

torch.set_grad_enabled(False)
torch.set_num_threads(1)  # for so small a model, several would only wait for each other
one = problems_of([parse_problem("978+457")])
for format in get_args(Format):
    text = write(one, format)
    shown = [SYMBOLS[token] for token in text.tokens[0].tolist()]
    asked = [SYMBOLS[token] for token in text.tokens[text.answer].tolist()]
    print(f"{format:16}", "".join(shown).ljust(24), "asked:", *asked)
    if format == "double-reversed":
        assert "".join(shown) == "<bos>879+754=5341<eos>"

# %% [markdown] lang="en"
# In `plain`, the first digit of the answer depends on every digit that was read: a carry from the very bottom may reach
# it. In `double-reversed` the answer begins where the carries begin, and each digit is written when all that it needs has
# just been written. The adders of this package use it.
#
# ## Where a digit stands {#places}
#
# The order is half of it. The other half is how a token knows where it stands. The digits to be added, $a_i$ and $b_i$,
# are far apart in the text, and the farther the longer the numbers are; a position counted from the beginning of the
# text, or from each other, is new for every new length. What they share is their *place*. So the adders count places:
# each digit has its index in its own number, from 1, and every other token has 0 ([architecture.place][]).

# %% [markdown] lang="ko"
# `plain`에서는 답의 첫 숫자가 읽은 숫자 모두에 달려 있다. 맨 아래에서 올라온 받아올림이 거기까지 닿을 수 있기 때문이다.
# `double-reversed`에서는 답이 받아올림과 같은 자리에서 시작하고, 각 숫자는 필요한 것이 모두 쓰인 바로 다음에 쓰인다. 이
# 패키지의 덧셈 모델은 이 형식을 쓴다.
#
# ## 숫자의 자리 {#places}
#
# 순서는 절반일 뿐이다. 나머지 절반은 토큰이 자기 위치를 어떻게 아는가이다. 더할 숫자 $a_i$와 $b_i$는 글에서 멀리 떨어져
# 있고, 수가 길수록 더 멀다. 글의 처음부터 센 위치도, 서로의 상대 위치도 길이가 바뀔 때마다 처음 보는 것이 된다. 둘의
# 공통점은 *자리*이다. 그래서 덧셈 모델은 자리를 센다. 숫자는 자기 수 안에서 1부터 센 순서를, 다른 토큰은 0을 갖는다.
# 이것이 자릿수 위치(digit place)이다([architecture.place][]).

# %%
tokens = write(one, "double-reversed").tokens
places = places_in_runs(tokens < 10, torch.ones_like(tokens, dtype=torch.bool))[0]
print("token", *(f"{SYMBOLS[token]:>5}" for token in tokens[0].tolist()))
print("place", *(f"{place:5}" for place in places.tolist()))

# %% [markdown] lang="en"
# Attention adds a learned number for each difference of places $p$, the same wherever the two tokens stand, and cuts off
# digits that are more than one place away ([architecture.place-bias][], [architecture.place-window][]):
#
# $$\mathrm{score} = \frac{q \cdot k}{\sqrt{K}} + 10\, w_{p_k - p_q,\;\text{same number?}}, \qquad |p_k - p_q| \le 1$$
#
# Here is what each token (row) of 68915 + 62898 may see (columns), and beside it the same with RoPE, which sees all.

# %% [markdown] lang="ko"
# 어텐션(attention)은 두 자리 $p$의 차이마다 학습한 값을 더하는데, 두 토큰이 어디에 있든 같은 값이다. 한 자리보다 멀리
# 떨어진 숫자는 아예 보지 않는다([architecture.place-bias][], [architecture.place-window][]).
#
# $$\mathrm{score} = \frac{q \cdot k}{\sqrt{K}} + 10\, w_{p_k - p_q,\;\text{same number?}}, \qquad |p_k - p_q| \le 1$$
#
# 68915 + 62898의 토큰(행)이 저마다 볼 수 있는 것(열)이다. 옆에는 모두 보는 RoPE를 놓았다.

# %%
trained = looplm.load("adder")
adder = trained.model
rope = looplm.LoopLM(load_recipe("first-light-rope").model)  # only what it sees
longer = problems_of([parse_problem("68915+62898")])
tokens = write(longer, "double-reversed").tokens
fig, both = plt.subplots(1, 2, figsize=(7.4, 3.6), layout="constrained")
shorter = {"<bos>": "^", "<eos>": "$"}
labels = [shorter.get(SYMBOLS[t], SYMBOLS[t]) for t in tokens[0].tolist()]
seen = {}
for axes, (name, model) in zip(
    both, {"digit places 자릿수 위치": adder, "RoPE": rope}.items(), strict=True
):
    _, view = model.embed(tokens, torch.ones_like(tokens, dtype=torch.bool))
    seen[name] = view.scores[0].amax(0) > -torch.inf
    axes.imshow(seen[name], cmap="Blues", vmin=0, vmax=1.6)
    axes.set_xticks(range(len(labels)), labels)
    axes.set_yticks(range(len(labels)), labels)
    axes.set(title=name, xlabel="read 읽히는 토큰")
    axes.spines[:].set_visible(False)
both[0].set(ylabel="reading 읽는 토큰")
assert seen["RoPE"].sum() > seen["digit places 자릿수 위치"].sum()

# %% [markdown] lang="en"
# The diagonal stripes are the column sums of school; the upright bars are the marks between the numbers, which
# everybody sees. That is a strong prior, made for addition and good for little else. Abacus embeddings (McLeish et al.
# 2024, arXiv:2405.17399) and position coupling (Cho et al. 2024, arXiv:2405.20671) also give digits their places, but
# keep attention global: their models have to learn where to look. Here the mask says it, and a token needs only what
# stands in its own column and one beside it. So the adder of this chapter is a learned local transducer, and a longer
# text is more of the same.
#
# ## What no training has seen {#held-out}
#
# There are few short sums, so training would draw nearly all of them, and a test on those would test memory. A rule on
# the two numbers holds out one pair in 16, in either order, for every run and seed ([addition.held-out][]). A longer sum
# is of course new by its length alone.

# %% [markdown] lang="ko"
# 비스듬한 줄무늬가 바로 학교에서 배운 세로셈이고, 세로 막대는 모든 토큰이 보는, 수와 수 사이의 표시이다. 덧셈에 맞춘
# 강한 사전 지식(prior)이며 다른 데에는 별 쓸모가 없다. Abacus 임베딩(McLeish 외 2024, arXiv:2405.17399)과 위치
# 결합(position coupling, Cho 외 2024, arXiv:2405.20671)도 숫자의 자리를 알려 주지만 어텐션은 글 전체를 보므로, 그
# 모델들은 어디를 볼지 배워야 한다. 여기서는 마스크가 그것을 정해 주고, 토큰에는 자기 열과 바로 옆 열에 있는 것만 있으면
# 된다. 그러니 이 장의 덧셈 모델은 학습된 국소 변환기(local transducer)이고, 글이 길어져도 같은 것이 더 이어질 뿐이다.
#
# ## 어떤 훈련도 보지 않은 것 {#held-out}
#
# 짧은 덧셈은 몇 되지 않아 훈련에서 거의 다 나온다. 그것으로 테스트하면 기억력 테스트가 된다. 그래서 두 수에 대한 규칙
# 하나가 순서와 상관없이 열여섯 쌍 가운데 하나를 떼어 놓는다. 어느 실행, 어느 시드에서나 같은
# 쌍이다([addition.held-out][]). 더 긴 덧셈은 물론 길이만으로도 처음 보는 것이다.

# %%
recipe = load_recipe("first-light")
drawn = draw_training(range(5000), recipe.task, Draw(seed=0, stream="chapter 5"))
assert not held_out(drawn).any()
assert torch.equal(held_out(swap(drawn)), held_out(drawn))
every = torch.cartesian_prod(torch.arange(100), torch.arange(100)).tolist()
small = problems_of([(str(a), str(b)) for a, b in every])
print(f"held out of all pairs below 100: {held_out(small).double().mean():.2%}")
print("some training sums:", *("+".join(pair) for pair in drawn[:6].numbers()))

# %% [markdown] lang="en"
# ## What makes a test hard {#hard}
#
# A place where the digits sum to 9 passes a carry on. The places through which one carry runs are its chain
# ([addition.longest-chain][]), and a long chain is what a method must survive. In uniformly drawn sums long chains are
# rare, so a model can look perfect and fail on every chain of six. Hence a second test set, in which most places pass a
# carry on ([addition.carry-heavy-set][]), and another with chains of an exact length ([addition.chain-set][]). A run of
# nines into which *no* carry comes is as hard, since who stands above it must wait to see; in a third test set half of the
# runs are such ([addition.nines-set][]).

# %% [markdown] lang="ko"
# ## 무엇이 테스트를 어렵게 하는가 {#hard}
#
# 두 숫자의 합이 9인 자리는 받아올림을 그대로 위로 넘긴다. 받아올림 하나가 이어지는 자리들이
# 사슬(chain)이고([addition.longest-chain][]), 방법이라면 긴 사슬도 풀 수 있어야 한다. 균등 추출한 덧셈에는 긴 사슬이
# 드물어서, 완벽해 보이는 모델이 여섯 자리 사슬에서 모조리 실패할 수도 있다. 그래서 대부분의 자리가 받아올림을 넘기는
# 둘째 테스트 세트([addition.carry-heavy-set][])와, 사슬의 길이를 정해 둔 테스트 세트([addition.chain-set][])가
# 있다. 합이 9인 자리가 이어져 있고 받아올림이 들어오지 *않는* 문제도 그만큼 어렵다. 그 위의 자리는 기다려 보아야 알기
# 때문이다. 셋째 테스트 세트에서는 이어진 구간의 절반이 그렇다([addition.nines-set][]).

# %%
fig, axes = plt.subplots(figsize=(6.4, 3), layout="constrained")
long_chains = {}
for kind, colour, shift in (
    ("uniform", "#3f7fd9", -0.2),
    ("carry-heavy", "#d98a3f", 0.2),
):
    chains = add(test_set(kind, digits=24, count=2000, seed=0)).longest_chain
    shares = torch.bincount(chains, minlength=25) / len(chains)
    long_chains[kind] = float((chains >= 6).double().mean())
    axes.bar(torch.arange(25) + shift, shares, width=0.4, color=colour, label=kind)
axes.set(xlabel="longest chain 가장 긴 사슬", ylabel="share 비율")
axes.legend(fontsize=9)
axes.spines[["top", "right"]].set_visible(False)
for kind, share in long_chains.items():
    print(f"{kind:12} {share:.1%} have a chain of 6 or more")
assert long_chains["uniform"] < 0.01 < 0.5 < long_chains["carry-heavy"]
assert (add(chain_set(chain=7, digits=24, count=50, seed=0)).longest_chain == 7).all()

# %% [markdown] lang="en"
# ## What came of it {#results}
#
# Five seeds, trained on 1-4 digits; sums solved exactly, in percent ([tasks.exact-match][]). *Target* is what the plan
# behind this project hoped for, *origin* what its authors measured; the controls change one thing each.
#
# <!-- render: results first-light -->
#
# ![Accuracy by digits](../docs/figures/first-light-accuracy.svg)
#
# Look at the RoPE column first. The same loop, the same training: nearly all of the four-digit sums, and none of the
# five-digit ones. Then at the other two controls. They have no loop at all, four layers or one, and digit places; they
# solve everything. So it is the positions, with their mask, that carry the method from 4 digits to 100, and not the
# loop. What the mask is worth by itself, with RoPE or with no positions at all, and how Abacus embeddings or position
# coupling do at this size, is not measured yet.
#
# ## A thousand digits {#thousand}
#
# Digit places have no largest one, so nothing stops us. One sum of 1,000 digits, read at once (right answer given as the
# text, each token predicted from what stands before it; greedy decoding gives the same verdict):

# %% [markdown] lang="ko"
# ## 결과 {#results}
#
# 1-4자리로 훈련한 시드 다섯 개이다. 정확히 푼 덧셈 문제의 비율을 퍼센트로 적었다([tasks.exact-match][]). *목표*는 이
# 프로젝트의 바탕이 된 계획이 세운 것이고 *원래 측정*은 그 저자들이 측정한 것이다. 대조군은 저마다 하나씩을 바꾼 것이다.
#
# <!-- render: results first-light -->
#
# ![자릿수에 따른 정확도](../docs/figures/first-light-accuracy.svg)
#
# 먼저 RoPE 열을 보자. 루프도 같고 훈련도 같은데, 네 자리 문제는 거의 다 풀고 다섯 자리 문제는 하나도 풀지 못한다.
# 다음은 나머지 두 대조군이다. 층이 넷이든 하나든 루프는 아예 없고 자릿수 위치만 있는데, 모두 푼다. 이 모델들이 4자리로
# 배운 것을 100자리에 적용하게 하는 것은 루프가 아니라 마스크가 딸린 위치이다. 마스크가 RoPE와 함께, 또는 위치 없이 쓰일
# 때 어떤지, 그리고 Abacus 임베딩이나 위치 결합이 이 크기에서 어떤지는 아직 측정하지 않았다.
#
# ## 천 자리 {#thousand}
#
# 자릿수 위치에는 가장 큰 값이 없으므로 얼마든지 길게 할 수 있다. 1,000자리 덧셈 하나를 한꺼번에 읽힌다. (맞는 답을 글로
# 주고 토큰마다 앞에 있는 것만 보고 예측하게 한다. 한 토큰씩 써 나가도 판정은 같다.)

# %%
long = test_set("carry-heavy", digits=1000, count=1, seed=7)
print("longest carry chain:", int(add(long).longest_chain[0]))
made = exact_match(
    adder, collate(long, "double-reversed", "left-to-right"), trained.recipe.halting
)
print(
    "right:", bool(made.solved[0]), " most loops of a token:", int(made.most_loops[0])
)
print(f"block evaluations: {made.block_evaluations[0]:.0f}")
assert made.solved.all()

# %% [markdown] lang="en"
# One sum is an anecdote, not a rate; the table above has the rates. It is 250 times the length of anything in training,
# and it took three loops a token; but through the mask it is a row of columns, each no harder than those of four
# digits.
#
# ## What surprised us {#surprise}
#
# How little the model had to do with it. We came to show a loop that adds, and found that one layer, passed once, adds
# as well, once the digits know their places. With the answer written from the lowest digit upwards, the writing itself
# is the loop: each new token carries the carry. Depth begins to matter when the writing is taken away, as in [the
# chapter before](../examples/04_thinking_longer.py).
#
# ## Exercises {#exercises}
#
# Each exercise has a test. Write your own solution in place of ours, and run the cell: no error means solved.
#
# **1.** Find two numbers of five digits whose sum has a carry chain through all five places, and which no training has
# ever seen.

# %% [markdown] lang="ko"
# 문제 하나는 사례이지 비율이 아니다. 비율은 위의 표에 있다. 훈련에서 본 어떤 덧셈보다 250배 길고 토큰마다 많아야 세
# 루프가 들었지만, 마스크를 통해 보면 네 자리일 때보다 어렵지 않은 열이 이어져 있을 뿐이다.
#
# ## 뜻밖이었던 점 {#surprise}
#
# 모델이 한 일이 얼마나 적었는가 하는 점이다. 덧셈하는 루프를 보이려 했는데, 숫자가 자기 자리를 알기만 하면 층 하나를 한
# 번 통과하는 모델도 똑같이 덧셈을 했다. 답을 낮은 자리부터 써 나가면 쓰는 과정 자체가 루프가 된다. 새 토큰이 받아올림을
# 전달하는 것이다. 깊이는 그 과정이 없을 때 비로소 중요해진다. [앞 장](../examples/04_thinking_longer.py)에서 다룬 것이
# 그것이다.
#
# ## 연습 문제 {#exercises}
#
# 연습 문제마다 테스트가 있다. 우리 풀이 자리에 자기 풀이를 쓰고 셀을 실행해 보자. 오류가 없으면 푼 것이다.
#
# **1.** 받아올림이 다섯 자리 모두를 지나는 다섯 자리 수 둘을, 어떤 훈련도 본 적이 없는 것으로 찾아보자.


# %%
def check_long_chain(a, b):
    """Five digits each, a chain of five, held out."""
    found = problems_of([parse_problem(f"{a}+{b}")])
    assert len(str(a)) == len(str(b)) == 5
    assert add(found).longest_chain[0] == 5, "the chain is shorter"
    assert held_out(found)[0], "training may have seen it"


# %% tags=["solution"]
((a, b),) = chain_set(chain=5, digits=5, count=1, seed=0).numbers()
check_long_chain(a, b)
print(f"{a} + {b} = {int(a) + int(b)}")

# %% [markdown] lang="en"
# **2.** Digit places are defined in one clause ([architecture.place][]). Write them yourself, for a text such as
# `879+754=5341`, in plain Python.

# %% [markdown] lang="ko"
# **2.** 자릿수 위치는 조항 하나가 정한다([architecture.place][]). `879+754=5341` 같은 글에 대해, 파이썬만으로 직접
# 써 보자.


# %%
def check_places(places_of):
    """The same as the package's, on 50 drawn sums."""
    drawn = test_set("uniform", digits=6, count=50, seed=3)
    for row, text in enumerate(write(drawn, "double-reversed").tokens):
        symbols = [SYMBOLS[token] for token in text.tolist() if token < 12]
        expected = places_in_runs(text[None] < 10, text[None] < 14)[0]
        kept = [
            int(p)
            for p, token in zip(expected, text.tolist(), strict=True)
            if token < 12
        ]
        assert places_of("".join(symbols)) == kept, f"sum {row}: {''.join(symbols)}"


# %% tags=["solution"]
def places_of(text):
    """1, 2, 3, … within each number; 0 elsewhere."""
    places = []
    for symbol in text:
        before = places[-1] if places else 0
        places.append(before + 1 if symbol.isdigit() else 0)
    return places


check_places(places_of)

# %% [markdown] lang="en"
# Formats and test sets are [`looplm.tasks.addition.problems`][looplm.tasks.addition.problems] and
# [`looplm.tasks.addition.sets`][looplm.tasks.addition.sets], their clauses [the spec's page](../spec/addition.md).

# %% [markdown] lang="ko"
# 형식과 테스트 세트는 [`looplm.tasks.addition.problems`][looplm.tasks.addition.problems]와
# [`looplm.tasks.addition.sets`][looplm.tasks.addition.sets]에, 조항은 [명세](../spec/addition.ko.md)에 있다.

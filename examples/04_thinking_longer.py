"""Thinking longer: the fourth chapter. Read it on the site, or run it: python examples/04_thinking_longer.py."""

# %% [markdown] lang="en"
# # Thinking longer {#thinking-longer}
#
# **What you will see.** A model that must give all digits of a sum at once. Whether a carry comes can reach a slot only
# through the loops, one place after another, and you will see what the loops wait for. You will let every token stop
# for itself, count the work beside that of fixed loops, check that nothing is changed by leaving work out, see the
# simplest stopping rule fail, and run into the cap on loops.

# %% [markdown] lang="ko"
# # 더 오래 생각하기 {#thinking-longer}
#
# **무엇을 보게 되는가.** 답의 모든 숫자를 한꺼번에 내놓아야 하는 모델이다. 그래서 받아올림(carry)이 오는지는 루프를
# 거쳐 한 자리씩만 전해지며, 루프가 무엇을 기다리는지 보게 된다. 토큰마다 스스로 멈추게 하고, 계산량을 고정 루프와
# 나란히 세고, 계산을 건너뛰어도 결과가 바뀌지 않음을 확인하고, 가장 단순한 정지 규칙이 실패하는 것과 루프 수의 상한에
# 부딪히는 것도 본다.

# %% [markdown] lang="en"
# ## The idea {#idea}
#
# In the first chapter the adder wrote its answer from the lowest digit upwards. Each digit stood on the one before it,
# and two or three loops were always enough: the hard part of a sum had been done by writing. Take the writing away.
# After `=` stand empty slots ([addition.slots][]), one for each digit of the answer, and every slot must find its own.
# Slot 8 of 99999999 + 1 is a 1 only because of what happens in slot 0. It can know that in one way alone: slot 1 gets
# it from slot 0, slot 2 from slot 1, and so on, a loop each, because a slot sees digits of no more than one place away
# ([architecture.place-window][]). So what happens $k$ places below a slot cannot change its state before loop
# $k$. That is forced by the mask; what a model makes of it is not.

# %% [markdown] lang="ko"
# ## 아이디어 {#idea}
#
# 첫 장의 덧셈 모델은 답을 낮은 자리부터 써 나갔다. 각 숫자는 바로 앞에 쓴 숫자를 이용했으므로 두세 루프면 언제나
# 충분했다. 덧셈의 어려운 부분은 답을 쓰는 과정이 맡았던 것이다. 이제 그 과정을 없애자. `=` 뒤에는 답의 숫자마다
# 빈칸(slot)이 하나씩 있고([addition.slots][]), 빈칸은 저마다 자기 숫자를 찾아야 한다. 99999999 + 1의 빈칸 8이 1인
# 이유는 오로지 빈칸 0에서 일어난 일에 있다. 그것을 아는 방법은 하나뿐이다. 빈칸은 한 자리보다 먼 숫자를 보지
# 못하므로([architecture.place-window][]), 빈칸 1은 빈칸 0에서, 빈칸 2는 빈칸 1에서, 한 루프에 한 자리씩 정보를
# 받는다. 그래서 빈칸보다 $k$자리 아래에서 일어난 일은 루프 $k$ 전에는 그 상태를 바꿀 수 없다. 여기까지는 마스크가
# 강제하는 것이고, 그 안에서 모델이 어떻게 하는지는 따로 볼 일이다.

# %%
from dataclasses import replace

import matplotlib.pyplot as plt
import torch

import looplm
from looplm.evaluate.figures import trace_figure
from looplm.evaluate.scores import exact_match
from looplm.loop.halting import ByRole
from looplm.loop.halting.confidence import Confidence
from looplm.loop.halting.fixed import Fixed
from looplm.loop.halting.two_equal_argmaxes import TwoEqualArgmaxes
from looplm.tasks.addition.problems import PAD, collate, parse_problem, problems_of
from looplm.tasks.addition.sets import chain_set
from looplm.think.batched import Thinking
from looplm.think.trace import trace_text

trained = looplm.load("parallel-adder")
adder, task, own = trained.model, trained.recipe.task, trained.recipe.halting
trace = trace_text(adder, task, "99999999+1", own)
assert trace.answer == "100000000"
trace_figure(trace.as_json())

# %% [markdown] lang="en"
# Columns are tokens, the slots stand right of the line, and each row is a loop. Read the slots from the left. Their
# digits are guessed early here; what moves, slot by slot, is certainty (the colour), and a slot stops once it has
# arrived. The prompt, left of the line, thinks for a few loops and stops too: its tokens have nothing to wait for.
#
# ## When may a slot stop? {#when}
#
# A slot far from where the carry is born can be *sure* of a wrong digit until the carry reaches it. So being sure is not
# enough ([halting.confidence][]). The rule of this adder is prefix stability ([halting.prefix-stability][]): a slot stops
# when it has said the same twice, surely or at rest, **and** no slot before it is still thinking. With $s_i$ the loops
# that slot $i$ takes:
#
# $$s_i = \min\,\{\,l \ge \max_{j < i} s_j \;:\; \text{slot } i \text{ is settled after loop } l\,\}$$
#
# A slot looks only at itself and to its left, so the rule stays causal. Tokens of the prompt predict nothing, and stop
# when a loop hardly changes their state any more ([halting.state-change][], [halting.roles][]).

# %% [markdown] lang="ko"
# 열은 토큰이고, 빈칸은 선의 오른쪽에 있으며, 행은 루프이다. 빈칸을 왼쪽부터 읽어 보자. 여기서 숫자는 일찍 추측한다. 한
# 칸씩 전파되는 것은 확신(색)이며, 확신하게 된 빈칸은 멈춘다. 선 왼쪽의 프롬프트(prompt)는 몇 루프만 돌고 멈춘다. 기다릴
# 것이 없기 때문이다.
#
# ## 빈칸은 언제 멈추어도 되는가 {#when}
#
# 받아올림이 생긴 자리에서 먼 빈칸은 받아올림이 닿을 때까지 틀린 숫자를 *확신*할 수 있다. 그러니 확신만으로는
# 모자란다([halting.confidence][]). 이 덧셈 모델의 규칙은 앞부분 안정(prefix
# stability)이다([halting.prefix-stability][]). 빈칸은 높은 확신도로, 또는 상태가 수렴한 채로 같은 추측을 두 번 하고,
# **그리고** 앞의 빈칸이 모두 멈추었을 때 멈춘다. 빈칸 $i$가 쓰는 루프 수를 $s_i$라 하면
#
# $$s_i = \min\,\{\,l \ge \max_{j < i} s_j \;:\; \text{slot } i \text{ is settled after loop } l\,\}$$
#
# 빈칸은 자기 자신과 왼쪽만 보므로 규칙은 인과적이다. 프롬프트의 토큰은 아무것도 예측하지 않으며, 루프가 상태를 거의
# 바꾸지 않게 되면 멈춘다([halting.state-change][], [halting.roles][]).

# %%
print("slot   loops  halted by")
for number, slot in enumerate(t for t in trace.tokens if t.role == "answer"):
    print(f"{number:4} {slot.loops_taken:7}  {slot.halt_reason}")

# %% [markdown] lang="en"
# ## Sure, and wrong {#sure}
#
# Here are sums of 16 digits with a carry chain of exactly 12 places ([addition.longest-chain][]), solved three times:
# with the adder's own rule, stopping at 99 % confidence, and stopping when two loops agree, which made no mistake on the
# sum of the last chapter.

# %% [markdown] lang="ko"
# ## 확신하면서 틀리다 {#sure}
#
# 받아올림 사슬(chain)이 정확히 열두 자리인 16자리 덧셈([addition.longest-chain][])을 세 번 푼다. 한 번은 이 모델의
# 규칙으로, 한 번은 확신도 99 %에서 멈추게 하여, 또 한 번은 앞 장의 덧셈을 틀리지 않았던 대로 두 루프의 추측이 같으면
# 멈추게 하여 푼다.

# %%


def asked(problems):
    """Sums as this adder is asked them."""
    return collate(problems, "double-reversed", "parallel")


hard = asked(chain_set(chain=12, digits=16, count=40, seed=1))
rules = {
    "prefix stability": own,
    "confidence 0.99": ByRole(Confidence(64, threshold=0.99), own.prompt),
    "two equal argmaxes": ByRole(TwoEqualArgmaxes(64), own.prompt),
}
for name, rule in rules.items():
    made = exact_match(adder, hard, rule)
    print(
        f"{name:20} right {int(made.solved.sum()):2} of 40, mean loops of a slot {made.mean_loops.mean():5.2f},"
        f" work {made.block_evaluations.mean():.0f}"
    )

# %% [markdown] lang="en"
# ## The work, counted {#work}
#
# "Mean loops" flatters: it forgets the prompt. So work is counted in block evaluations, one for each token and loop,
# the prompt included, with a share for the pass in which a halted token publishes its keys and values
# ([halting.block-evaluations][]). [`Thinking`][looplm.think.batched.Thinking] really leaves the rest out
# ([halting.skipped-work][]). A fixed number of loops that is enough for long chains costs the same for every sum;
# whether halting comes out cheaper depends on the sums, as [the results](#results) show.

# %% [markdown] lang="ko"
# ## 계산량 {#work}
#
# "평균 루프"는 프롬프트를 잊으므로 실제보다 좋아 보인다. 그래서 계산량은 블록 계산으로 센다. 프롬프트를 포함하여
# 토큰마다 루프마다 하나씩 세고, 멈춘 토큰이 키와 값을 내놓는 계산의 몫을 더한다([halting.block-evaluations][]).
# [`Thinking`][looplm.think.batched.Thinking]은 나머지를 정말로 계산하지 않는다([halting.skipped-work][]). 긴 사슬에도 충분한
# 루프 수로 고정하면 어느 문제든 계산량이 같다. 정지 규칙이 더 싼지는 문제에 달려 있으며, [결과](#results)에서 확인한다.


# %%
def think(problem, rule):
    """One sum, and the work that it took."""
    question = collate(
        problems_of([parse_problem(problem)]), "double-reversed", "parallel"
    )
    thinking = Thinking(adder, question.tokens, rule, answer=question.scored)
    while thinking.running.any():
        thinking.advance()
    return question, thinking


print("sum                  adaptive   16 loops for all")
for problem in ("12345678+11111111", "99999999+1", "99995555+4445"):
    adaptive, fixed = (
        think(problem, rule)[1].block_evaluations.item() for rule in (own, Fixed(16))
    )
    print(f"{problem:20} {adaptive:8.1f} {fixed:12.1f}")

# %% [markdown] lang="en"
# ## Nothing is changed by saving {#exact}
#
# This is the part that looped models usually give up. Halted tokens drop out of the computation, others go on and still
# read them, rows of a batch stop at different times; and yet every state must be what the plain pass gives, which
# computes everything and throws half of it away ([`think`][looplm.models.looped.LoopLM.think]). It holds because a halted
# token shows to all later loops one thing that never changes again: the keys and values of its final state, as one loop
# more would compute them ([halting.kv-publish][]). The tests draw models, texts, masks and rules, and compare in float64;
# here is one case.

# %% [markdown] lang="ko"
# ## 건너뛰어도 결과는 같다 {#exact}
#
# 루프 모델이 흔히 포기하는 부분이다. 멈춘 토큰은 계산에서 빠지고, 다른 토큰은 계속하면서 여전히 그것을 읽으며, 배치의
# 행은 저마다 다른 때에 멈춘다. 그런데도 모든 상태는, 전부 계산하고 절반을 버리는 단순한 방법이 주는 것과 같아야
# 한다([`think`][looplm.models.looped.LoopLM.think]). 멈춘 토큰이 뒤의 모든 루프에 보이는 것은 다시는 바뀌지 않는 하나,
# 곧 마지막 상태의 키와 값을 한 루프 더 돈 것처럼 계산한 것이기 때문이다([halting.kv-publish][]). 테스트는 모델과 글과
# 마스크와 규칙을 무작위로 뽑아 float64로 비교한다. 여기서는 한 가지만 본다.

# %%
problems = chain_set(chain=5, digits=9, count=6, seed=2)
question = collate(problems, "double-reversed", "parallel")
precise = looplm.load("parallel-adder", dtype=torch.float64).model
plain = precise.think(
    question.tokens,
    own,
    real=question.tokens != PAD,
    answer=question.scored,
)
thinking = Thinking(
    precise,
    question.tokens,
    own,
    real=question.tokens != PAD,
    answer=question.scored,
)
while thinking.running.any():
    thinking.advance()
width = question.tokens.shape[1]
assert torch.equal(thinking.loops_taken[:, :width], plain.loops_taken)
difference = (thinking.states[:, :width] - plain.h)[question.tokens != PAD].abs().max()
assert difference < 1e-10
print(
    f"loops equal for all {plain.loops_taken.numel()} tokens; states differ by less than 1e-10"
)
computed = int(plain.loops_taken.max()) * plain.loops_taken.numel()
print(f"block evaluations: {thinking.block_evaluations.sum():.0f}, plain {computed}")

# %% [markdown] lang="en"
# ## Loops against the carry chain {#carry}
#
# For one problem that is a story; here is the count. For chains of 0 to 12 places in sums of 16 digits, the most loops
# of any slot, the mean of 20 sums each. The committed measurement asks five models for chains up to 20 (see below).

# %% [markdown] lang="ko"
# ## 받아올림 사슬에 따른 루프 수 {#carry}
#
# 한 문제는 사례일 뿐이므로 여러 문제로 센다. 16자리 덧셈에서 사슬 0에서 12까지, 가장 오래 돈 빈칸의 루프 수를 20문제씩
# 평균한다. 저장소의 측정에서는 모델 다섯으로 사슬 20까지 확인한다(아래를 보라).

# %%
chains = range(13)
most = [
    exact_match(adder, asked(chain_set(chain, 16, 20, seed=3)), own)
    .most_loops.double()
    .mean()
    for chain in chains
]
fig, axes = plt.subplots(figsize=(6, 3), layout="constrained")
axes.plot(chains, most, color="#3f7fd9", marker="o")
axes.set(
    xlabel="carry chain 받아올림 사슬",
    ylabel="most loops 가장 많은 루프",
    ylim=(0, None),
)
axes.grid(alpha=0.4)
axes.spines[["top", "right"]].set_visible(False)
assert most[12] > most[4] > most[1]

# %% [markdown] lang="en"
# ## What the loops wait for {#news}
#
# Is it the carry? Try sums in which every place hangs on the lowest one. In 9…99 + 1 a carry runs through all places,
# in 9…98 + 1 none does, and a slot far up cannot tell the two apart before the news has come. The same with 4 + 5 in
# place of 9 + 0.

# %% [markdown] lang="ko"
# ## 루프가 기다리는 것 {#news}
#
# 루프가 따라가는 것은 받아올림인가? 모든 자리가 가장 낮은 자리에 달린 덧셈을 풀어 보자. 9…99 + 1에서는 받아올림이 모든
# 자리를 지나고 9…98 + 1에서는 하나도 없는데, 높은 자리의 빈칸은 정보가 오기 전에는 둘을 구별할 수 없다. 9 + 0 자리를 4
# + 5로 바꾼 것도 함께 푼다.


# %%
def most_loops(a, b, rule=own):
    """The most loops of a slot, and whether the sum is right."""
    made = exact_match(adder, asked(problems_of([(a, b)])), rule)
    return int(made.most_loops[0]), bool(made.solved[0])


print("digits   9…99 + 1   9…98 + 1   4…45 + 5…5   4…44 + 5…5")
for n in (8, 24, 48):
    nines, fours = "9" * (n - 1), "4" * (n - 1)
    pairs = [(nines + "9", "1"), (nines + "8", "1")]
    pairs += [(fours + "5", "5" * n), (fours + "4", "5" * n)]
    loops, right = zip(*(most_loops(a, b) for a, b in pairs), strict=True)
    print(f"{n:6} {loops[0]:10} {loops[1]:10} {loops[2]:13} {loops[3]:13}")
    assert all(right) and loops[0] < loops[1] and loops[3] < loops[2]

# %% [markdown] lang="en"
# All twelve are right, and the loops do not follow the carry. A carry through 48 places of 9 + 0 takes no more loops
# than one through 8; it is the *missing* carry that takes a loop a place. With 4 + 5 it is the other way round. Of a
# place that sums to 9 the model has an expectation, which depends on its digits, and loops are spent where news
# contradicts it, one place after another. In 9…98 + 1 and in 4…45 + 5…5 you would see the digits themselves change,
# loop by loop. What models of other seeds expect is not measured yet. The plot above holds all the same, for its sums
# are of drawn digits, and somewhere in a long chain some place is surprised.
#
# ## Where it ends {#cap}
#
# The rule of this adder has a cap, `max_loops`, and a token that runs into it stops in the middle of its thought.

# %% [markdown] lang="ko"
# 열두 문제 모두 맞지만, 루프 수는 받아올림을 따르지 않는다. 9 + 0이 이어진 48자리를 받아올림이 지나는 데 드는 루프는
# 8자리일 때보다 많지 않고, 한 자리에 한 루프씩 드는 것은 받아올림이 *없을* 때이다. 4 + 5에서는 그 반대이다. 합이 9인
# 자리마다 모델에는 숫자에 따라 다른 기본 예상이 있고, 루프는 그 예상을 뒤집는 정보가 한 자리씩 전해지는 데 쓰인다. 9…98
# + 1과 4…45 + 5…5에서는 숫자 자체가 루프마다 바뀐다. 시드가 다른 모델의 예상은 아직 측정하지 않았다. 그래도 위의 그림은
# 성립한다. 거기서는 숫자를 무작위로 뽑았으므로, 긴 사슬 어딘가에는 예상과 다른 자리가 있기 때문이다.
#
# ## 한계 {#cap}
#
# 이 모델의 규칙에는 루프 수의 상한 `max_loops`가 있고, 상한에 걸린 토큰은 다 풀지 못한 채로 멈춘다.

# %%
caps = (64, 128)
print("chain", *(f"  at most {cap} loops" for cap in caps))
ended = {}
for chain in (60, 64, 65, 100):
    a, b = "4" * (chain - 1) + "5", "5" * chain
    rules = [ByRole(replace(own.answer, max_loops=cap), own.prompt) for cap in caps]
    ended[chain] = [most_loops(a, b, rule) for rule in rules]
    shown = [
        f"{loops}, {'right' if solved else 'wrong'}" for loops, solved in ended[chain]
    ]
    print(f"{chain:5}", *(f"{text:>19}" for text in shown))
assert ended[64][0][1] and not ended[65][0][1] and ended[100][1][1]

# %% [markdown] lang="en"
# The rule that was learned on 4 digits goes on, place by place, until the cap cuts it off; with a higher cap it goes
# further. No test set of this book can see that, because chains of this length do not occur in sums that pass a carry
# on with a probability of about 0.7 a place. So 100 % on sums of 100 digits means 100 % of such sums.

# %% [markdown] lang="ko"
# 4자리로 배운 규칙은 상한이 끊을 때까지 한 자리씩 이어지고, 상한을 높이면 더 나아간다. 이 책의 어떤 테스트 세트로도
# 이것을 볼 수 없다. 한 자리가 받아올림을 넘길 확률이 0.7쯤인 덧셈에는 이만한 사슬이 나오지 않기 때문이다. 그러니
# 100자리에서 100 %란 그런 덧셈의 100 %라는 뜻이다.

# %% [markdown] lang="en"
# ## What the five models gave {#results}
#
# Trained on at most 4 digits. Sums solved exactly, in percent, with the halting above; work is in block evaluations a
# sum, uniform / carry-heavy.
#
# <!-- render: results parallel -->
#
# <!-- render: tested parallel -->
#
# Work on carry-heavy sums of 24 digits, against the smallest fixed number of loops within half a point of the accuracy
# (full prompt: all tokens run them; cheap prompt: the prompt halts as above):
#
# <!-- render: saved parallel-depth -->
#
# <!-- render: saved_work parallel-depth -->
#
# So what halting saves depends on the sums. How much of it is owed to stopping each token for itself, and not each sum
# as a whole, is not measured yet; neither is a model of as many unshared layers.
#
# The most loops of a slot against the longest chain, sums of 24 digits; their work was not counted. The correlation is
# largely forced by the mask, as above, so it is a check and no finding:
#
# <!-- render: chains parallel-depth -->
#
# ![Loops against the carry chain](../docs/figures/parallel-depth.svg)
#
# What a halted token leaves to others ([halting.kv-publish][], [halting.kv-alternatives][]), sums of 24 digits, all
# models:
#
# <!-- render: offers parallel-depth -->

# %% [markdown] lang="ko"
# ## 모델 다섯의 결과 {#results}
#
# 많아야 4자리로 훈련했다. 위의 정지 규칙으로 정확히 푼 덧셈 문제의 비율(%)이고, 계산량은 한 문제의 블록 계산을 균등
# 추출 / 받아올림이 많은 문제 순으로 적었다.
#
# <!-- render: results parallel -->
#
# <!-- render: tested parallel -->
#
# 받아올림이 많은 24자리 덧셈의 계산량을, 정확도 차이가 0.5점 이내인 가장 작은 고정 루프 수와 비교한다(전체 프롬프트:
# 모든 토큰이 그만큼 돈다. 조기 정지 프롬프트: 프롬프트는 위와 같이 멈춘다).
#
# <!-- render: saved parallel-depth -->
#
# <!-- render: saved_work parallel-depth -->
#
# 그러니 정지로 얼마를 줄이는지는 문제에 달려 있다. 그 가운데 얼마가 문제 전체가 아니라 토큰마다 멈추는 덕인지는 아직
# 측정하지 않았고, 층을 그만큼 쌓은 모델과도 비교하지 않았다.
#
# 24자리 덧셈에서 가장 긴 사슬에 따른 빈칸의 최대 루프 수는 다음과 같다. 계산량은 세지 않았다. 앞에서 보았듯 상관은
# 대부분 마스크가 강제하므로, 새로 발견한 것이 아니라 확인이다.
#
# <!-- render: chains parallel-depth -->
#
# ![받아올림 사슬에 따른 루프 수](../docs/figures/parallel-depth.svg)
#
# 멈춘 토큰이 다른 토큰에 남기는 것([halting.kv-publish][], [halting.kv-alternatives][])의 비교이다. 24자리 덧셈, 모든
# 모델.
#
# <!-- render: offers parallel-depth -->

# %% [markdown] lang="en"
# ## What surprised us {#surprise}
#
# A model takes any shorter way that it is left. Our first ones solved 99999999 + 1 in three loops: the `=` sees the
# lowest digits, every slot sees the `=`, and a carry born in the lowest place was known everywhere at once. So here
# tokens that are no digits see no digits ([architecture.place-strict][]), and a carry has to go from place to
# place. The next ones were perfect on every chain up to three places and failed on five. Nothing in four digits forces
# a carry to look the same after one place and after four; we suppose that the models counted. So the training adds
# noise to the state ([training.state-noise][]), meant to blur such a count, and starts a part of the batches from the
# state of *another* problem ([training.restarts][]), so that the loop learns to find its way from anywhere. [The
# studies](../docs/studies.md#loops) show that noise alone is not enough; what it does beside restarts is not measured
# yet (`spec/presets/studies/parallel.toml` is written, and has not been run).
#
# ## Exercises {#exercises}
#
# Each exercise has a test. Write your own solution in place of ours, and run the cell: no error means solved.
#
# **1.** Replace the rule of the prompt by a fixed number of loops. How few will do, so that all 40 hard sums are still
# right? Is it less work than the adder's own rule?

# %% [markdown] lang="ko"
# ## 뜻밖이었던 점 {#surprise}
#
# 모델은 지름길이 있으면 반드시 찾아낸다. 처음의 모델들은 99999999 + 1을 세 루프 만에 풀었다. `=`가 가장 낮은 숫자들을
# 보고 모든 빈칸이 `=`를 보므로, 가장 낮은 자리에서 생긴 받아올림을 어디서나 곧바로 알았던 것이다. 그래서 여기서는
# 숫자가 아닌 토큰이 숫자를 보지 못하며([architecture.place-strict][]), 받아올림은 한 자리씩 전해질 수밖에 없다.
# 다음 모델들은 세 자리까지의 사슬에서는 완벽하고 다섯 자리에서는 실패했다. 네 자리 훈련에는 한 자리를 지난 받아올림과
# 네 자리를 지난 받아올림이 같은 모습이어야 할 이유가 없으므로, 모델이 자리를 세고 있었다고 추정한다. 그래서 훈련 중에
# 상태에 잡음을 넣어([training.state-noise][]) 그런 수를 흐리려 했고, 배치의 일부는 *다른* 문제의 상태에서 시작하게
# 하여([training.restarts][]) 루프가 어디서든 답을 찾는 법을 배우게 했다. [연구](../docs/studies.ko.md#loops)를 보면
# 잡음만으로는 모자란다. 재출발과 함께 쓸 때 잡음이 하는 몫은 아직 측정하지
# 않았다(`spec/presets/studies/parallel.toml`은 적어 두었고, 아직 실행하지 않았다).
#
# ## 연습 문제 {#exercises}
#
# 연습 문제마다 테스트가 있다. 우리 풀이 자리에 자기 풀이를 쓰고 셀을 실행해 보자. 오류가 없으면 푼 것이다.
#
# **1.** 프롬프트의 규칙을 고정된 루프 수로 바꾸어 보자. 어려운 40문제가 여전히 모두 맞으려면 적어도 몇 루프가 필요한가?
# 모델 자신의 규칙보다 계산량이 적은가?


# %%
def with_prompt(rule):
    """The hard sums, with the adder's own rule for the slots."""
    return exact_match(adder, hard, ByRole(own.answer, rule))


def check_prompt(fewest, less_work):
    """Enough for all 40, and one loop fewer is not."""
    enough, fewer = with_prompt(Fixed(fewest)), with_prompt(Fixed(fewest - 1))
    assert enough.solved.all(), f"{int(enough.solved.sum())} of 40"
    assert not fewer.solved.all(), "fewer will do"
    by_rule = with_prompt(own.prompt).block_evaluations.mean()
    assert less_work == bool(enough.block_evaluations.mean() < by_rule)


# %% tags=["solution"]
check_prompt(fewest=2, less_work=True)

# %% [markdown] lang="en"
# **2.** Run every slot for 200 loops. The first chapter's adder broke at forty. How many of the 40 sums does this one get
# right?

# %% [markdown] lang="ko"
# **2.** 모든 빈칸을 200루프씩 돌려 보자. 첫 장의 모델은 마흔 루프에서 무너졌다. 이 모델은 40문제 가운데 몇 개를
# 맞히는가?


# %%
def check_rested(right):
    """After 200 loops of every slot."""
    rested = exact_match(adder, hard, ByRole(Fixed(200), own.prompt))
    assert right == int(rested.solved.sum())


# %% tags=["solution"]
check_rested(right=40)

# %% [markdown] lang="en"
# **3.** [`think`][looplm.models.looped.LoopLM.think] takes a hook, which may change a state after a loop
# ([halting.probe][]). In 99999999 + 1, set the state of slot 3 to zero, once, so that the last slot is done *later* than
# it was. Does the carry get through all the same? (A halted token cannot be changed, so mind when you do it.)

# %% [markdown] lang="ko"
# **3.** [`think`][looplm.models.looped.LoopLM.think]에는 루프 뒤에 상태를 바꿀 수 있는 훅(hook)을 넘길 수
# 있다([halting.probe][]). 99999999 + 1에서 빈칸 3의 상태를 한 번 0으로 만들어, 마지막 빈칸이 전보다 *늦게* 끝나게 해
# 보자. 그래도 받아올림은 전해지는가? (멈춘 토큰은 바꿀 수 없으니 언제 하는지가 중요하다.)

# %%
nines = collate(
    problems_of([parse_problem("99999999+1")]), "double-reversed", "parallel"
)
slot_3 = int(nines.scored[0].nonzero()[3])


def check_hook(hook, gets_through):
    """The last slot is later than without the hook; the sum is right or wrong."""
    rule = own
    before = adder.think(nines.tokens, rule, answer=nines.scored).loops_taken[0, -1]
    after = adder.think(nines.tokens, rule, answer=nines.scored, hook=hook)
    assert after.loops_taken[0, -1] > before, f"{after.loops_taken[0, -1]} loops"
    right = (after.logits.argmax(-1) == nines.targets)[nines.scored].all()
    assert gets_through == bool(right)


# %% tags=["solution"]
def forget(l, h):
    """Slot 3 begins again after loop 4."""
    if l == 4:
        h = h.clone()
        h[:, slot_3] = 0
    return h


check_hook(forget, gets_through=True)

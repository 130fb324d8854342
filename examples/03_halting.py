"""Halting: the third chapter. Read it on the site, or run it: python examples/03_halting.py."""

# %% [markdown] lang="en"
# # Halting {#halting-chapter}
#
# **What you will see.** Five rules that tell a token when to stop, on the same thoughts of the same model. You will see
# what a rule may look at, what a halted token leaves behind, what each rule costs in work and in accuracy, and a token
# that stops *earlier* because all were asked to be more careful.

# %% [markdown] lang="ko"
# # 정지 {#halting-chapter}
#
# **무엇을 보게 되는가.** 토큰이 멈출 때를 정하는 다섯 규칙을, 같은 모델이 같은 문제를 푸는 과정에서 비교한다. 규칙이
# 무엇을 보아도 되는지, 멈춘 토큰이 무엇을 남기는지, 규칙마다 계산량과 정확도를 얼마나 내주는지를 보고, 모두에게 더
# 조심하라고 했더니 *더 일찍* 멈추는 토큰도 만난다.

# %% [markdown] lang="en"
# ## The idea {#idea}
#
# A looped model has no last layer, so somebody must say when to stop. The simplest answer is a number: six loops for
# everyone. But the tokens of one text are not equally hard, and after each loop every one of them can be read as a guess.
# So let each token look at its own guess, and decide. Halting is *per token*: one stops while its neighbour goes on.

# %% [markdown] lang="ko"
# ## 아이디어 {#idea}
#
# 루프 모델에는 마지막 층이 없으므로 언제 멈출지를 정해야 한다. 가장 단순한 답은 고정된 수, 이를테면 모두 여섯 루프이다.
# 그러나 한 글 안에서도 토큰마다 난이도가 다르고, 루프가 끝날 때마다 토큰은 저마다 추측을 내놓는다. 그러니 토큰이 자기
# 추측을 보고 스스로 정하게 하자. 정지(halting)는 *토큰마다* 일어난다. 하나가 멈춘 뒤에도 옆의 토큰은 계속한다.

# %% [markdown] lang="en"
# ## The equation {#equation}
#
# A rule says after which loops a token is *ready*. The token then takes
#
# $$s = \min\big(\{\,l \ge l_{\min} : \mathrm{ready}(l)\,\} \cup \{\,l_{\max}\,\}\big)$$
#
# loops: the first time counts, and there is an end to waiting ([halting.bounds][], [halting.at-least-one-loop][]). The
# rules differ in `ready` alone. Before we let them act, here is what they look at: one sum, six loops for every token.

# %% [markdown] lang="ko"
# ## 식 {#equation}
#
# 규칙은 토큰이 어느 루프 뒤에 *준비되었는지* 말한다. 토큰이 쓰는 루프 수는 다음과 같다.
#
# $$s = \min\big(\{\,l \ge l_{\min} : \mathrm{ready}(l)\,\} \cup \{\,l_{\max}\,\}\big)$$
#
# 처음 준비된 때가 곧 멈추는 때이고, 끝내 준비되지 않아도 상한에서 멈춘다([halting.bounds][],
# [halting.at-least-one-loop][]). 규칙마다 다른 것은 `ready`뿐이다. 규칙을 쓰기에 앞서, 규칙이 보는 것을 먼저 보자. 문제
# 하나를 모든 토큰이 여섯 루프씩 푼다.

# %%
import matplotlib.pyplot as plt
import torch

import looplm
from looplm.evaluate.scores import exact_match
from looplm.loop.cache import KVCache
from looplm.loop.halting import ByRole, observe
from looplm.loop.halting.confidence import Confidence
from looplm.loop.halting.fixed import Fixed
from looplm.loop.halting.prefix_stability import PrefixStability
from looplm.loop.halting.state_change import StateChange
from looplm.loop.halting.two_equal_argmaxes import TwoEqualArgmaxes
from looplm.tasks.addition.problems import (
    PAD,
    SYMBOLS,
    collate,
    parse_problem,
    problems_of,
)
from looplm.tasks.addition.sets import test_set

torch.set_grad_enabled(False)
torch.set_num_threads(1)  # for so small a model, several would only wait for each other
adder = looplm.load("adder").model
sums = problems_of([parse_problem("68915+62898")])
question = collate(sums, "double-reversed", "left-to-right")
tokens, answer = question.tokens, question.scored
run = adder.think(tokens, Fixed(6), answer=answer, keep_every_loop=True)
sure, guess = run.logits_per_loop[:, 0].softmax(-1).max(-1)  # [L, T]

print("read     its guess (and how sure) after loop 1, 2, 3")
for t in answer[0].nonzero()[:, 0].tolist():
    shown = [f"{SYMBOLS[guess[l, t]]:>5} ({sure[l, t]:.3f})" for l in range(3)]
    print(f"{SYMBOLS[tokens[0, t]]:5}", *shown)

# %% [markdown] lang="en"
# After loop 1 six of the seven guesses are wrong, and the surest of these gives itself three chances in four. After loop
# 2 all are right.
#
# ## Five rules {#rules}
#
# - `Fixed`: never ready; every token takes $l_{\max}$ loops ([halting.fixed][]).
# - `Confidence`: ready when the most likely next token has at least this probability ([halting.confidence][]).
# - `TwoEqualArgmaxes`: ready when two loops in a row say the same ([halting.two-equal-argmaxes][]).
# - `StateChange`: ready when a loop moves the state by less than this part of its length ([halting.state-change][]).
# - `PrefixStability`: ready when settled *and* no answer token before it still thinks ([halting.prefix-stability][]).
#
# A learned gate is a sixth, but it must be trained first ([halting.gate][]). A rule is a function of
# [`Evidence`][looplm.loop.halting.Evidence]: what the loops so far gave. So we can walk along the run above with each
# rule, and ask where it would have stopped every token.

# %% [markdown] lang="ko"
# 루프 1 뒤에는 일곱 추측 가운데 여섯이 틀렸고, 그 가운데 가장 확신하는 것의 확신도는 네 번에 세 번꼴이다. 루프 2
# 뒤에는 모두 맞는다.
#
# ## 다섯 규칙 {#rules}
#
# - `Fixed`: 결코 준비되지 않는다. 모든 토큰이 $l_{\max}$ 루프를 쓴다([halting.fixed][]).
# - `Confidence`: 가장 그럴듯한 다음 토큰의 확률, 곧 확신도(confidence)가 임계값 이상이면
#   준비된다([halting.confidence][]).
# - `TwoEqualArgmaxes`: 이어지는 두 루프의 추측이 같으면 준비된다([halting.two-equal-argmaxes][]).
# - `StateChange`: 상태의 변화량이 상태 크기의 ε배보다 작으면 준비된다([halting.state-change][]).
# - `PrefixStability`: 추측이 안정되었고 *그리고* 앞의 답 토큰이 모두 멈추었으면 준비된다([halting.prefix-stability][]).
#
# 여섯째로 게이트(gate)가 있지만, 이것은 따로 훈련해야 쓸 수 있다([halting.gate][]). 규칙은
# [`Evidence`][looplm.loop.halting.Evidence], 곧 지금까지의 루프에서 나온 것의 함수이다. 그러므로 위의 실행을 규칙마다
# 따라가며, 어디에서 토큰을 멈추었을지 확인할 수 있다.


# %%
def stops(rule, run):
    """The loop after which the rule would stop each token of an undisturbed run."""
    h, confidence = torch.zeros_like(run.h), torch.zeros_like(run.h[..., 0])
    guess, stopped = torch.full_like(tokens, -1), torch.zeros_like(tokens)
    active = torch.ones_like(answer)
    states = zip(run.logits_per_loop, run.h_per_loop, strict=True)
    for l, (logits, after) in enumerate(states, 1):
        seen = observe(l, after, h, logits, guess, confidence, answer, active)
        stopped += active
        active = active & ~rule(seen)
        h, guess, confidence = after, seen.guess, seen.confidence
    return stopped


rules = {
    "fixed, 6": Fixed(6),
    "confidence, 0.9": Confidence(6, threshold=0.9),
    "confidence, 0.99": Confidence(6, threshold=0.99),
    "two equal argmaxes": TwoEqualArgmaxes(6),
    "state change, 0.3": StateChange(6, epsilon=0.3),
    "prefix stability, 0.99": PrefixStability(6, threshold=0.99, epsilon=0.03),
}
print("                        loops of the answer's tokens")
for name, rule in rules.items():
    at = stops(rule, run)
    said = guess.gather(0, at - 1)[0]
    wrong = int((said != question.targets[0])[answer[0]].sum())
    print(f"{name:23}", *at[0, answer[0]].tolist(), f"  wrong: {wrong}")

# %% [markdown] lang="en"
# On this sum no guess of the first loop is both wrong and sure, so even a threshold of 0.9 does no harm; the map below
# shows that on others it does. Two equal argmaxes need no number at all, but always one loop more than the guess itself.
# The state change is the slowest here: this model's state goes on moving after its guess has settled, as the first
# chapter saw.
#
# ## Roles, and Wait-to-Think {#roles}
#
# The rules above look at guesses, and nobody has taught the tokens of the prompt to guess anything: only answers are in
# the loss. So the answer and the prompt may have rules of their own ([halting.roles][]). A confidence for both, low in
# the prompt and high in the answer, is the Wait-to-Think of the plan behind this project ([halting.wait-to-think][]).

# %% [markdown] lang="ko"
# 이 덧셈에는 루프 1에서 틀리면서 확신하는 추측이 없으므로 임계값(threshold) 0.9도 해가 없다. 다른 덧셈에서는 그렇지
# 않다는 것을 아래의 지도가 보인다. 두 추측이 같은지 보는 규칙에는 임계값이 필요 없지만, 언제나 추측 자체보다 한 루프가
# 더 든다. 상태 변화는 여기서 가장 느리다. 첫 장에서 보았듯이 이 모델의 상태는 추측이 안정된 뒤에도 계속 바뀐다.
#
# ## 역할, 그리고 Wait-to-Think {#roles}
#
# 위의 규칙들은 추측을 보는데, 프롬프트(prompt)의 토큰은 추측하도록 훈련하지 않았다. 손실에는 답만 들어간다. 그래서 답과
# 프롬프트는 서로 다른 규칙을 가질 수 있다([halting.roles][]). 둘 다 확신도를 보되 프롬프트에는 낮은 임계값을, 답에는
# 높은 임계값을 주는 것이, 이 프로젝트의 바탕이 된 계획이 Wait-to-Think라 부르는 것이다([halting.wait-to-think][]).

# %%
wait_to_think = ByRole(Confidence(6, threshold=0.99), Confidence(6, threshold=0.3))
thoughts = adder.think(tokens, wait_to_think, answer=answer, keep_every_loop=True)
print("prompt", *thoughts.loops_taken[~answer].tolist())
print("answer", *thoughts.loops_taken[answer].tolist())
assert thoughts.loops_taken[~answer].double().mean() < 1.5

# %% [markdown] lang="en"
# ## What a halted token leaves {#leaves}
#
# Three promises make halting safe, and each of them can be checked on the run above. A halted token is *frozen*: its
# state never changes again ([halting.freeze][]).

# %% [markdown] lang="ko"
# ## 멈춘 토큰이 남기는 것 {#leaves}
#
# 세 가지 약속이 정지를 믿을 수 있게 하며, 셋 다 위의 실행에서 확인할 수 있다. 첫째, 멈춘 토큰은 *동결*(freeze)된다.
# 상태가 다시는 바뀌지 않는다([halting.freeze][]).

# %%
for t, s in enumerate(thoughts.loops_taken[0].tolist()):
    assert torch.equal(thoughts.h_per_loop[s - 1, 0, t], thoughts.h[0, t])

# %% [markdown] lang="en"
# Halting is *causal*: a decision looks at its own token and at those before it, never at what comes after
# ([architecture.causal][]). So we may change the last token, and nobody before it notices.

# %% [markdown] lang="ko"
# 둘째, 정지는 *인과적*이다. 결정은 자기 토큰과 앞의 토큰만 보고 뒤의 것은 결코 보지 않는다([architecture.causal][]).
# 그러므로 마지막 토큰을 바꾸어도 앞의 토큰은 달라지지 않는다.

# %%
other = tokens.clone()
other[0, -1] = 7
changed = adder.think(other, wait_to_think, answer=answer)
assert torch.equal(changed.loops_taken[:, :-1], thoughts.loops_taken[:, :-1])
assert torch.allclose(changed.h[:, :-1], thoughts.h[:, :-1], atol=1e-6)

# %% [markdown] lang="en"
# And it *publishes*. Others still attend to a halted token, in loops that it never ran. After loop $s$ it projects keys
# and values once more, from its final state, and offers these to every later loop: a reader in loop $l$ sees entry
# $\min(l, s + 1)$ ([halting.kv-publish][]). What a token shows is then settled for good, and so it makes no difference
# whether a text is read at once or token by token, from a cache. In float64 the two agree to the last digits.

# %% [markdown] lang="ko"
# 셋째, 멈춘 토큰은 *내놓는다*. 다른 토큰은 멈춘 토큰이 돌지 않은 루프에서도 여전히 그 토큰에 어텐션한다. 루프 $s$ 뒤에
# 멈춘 토큰은 마지막 상태에서 키와 값을 한 번 더 계산하여 뒤의 모든 루프에 내놓고, 루프 $l$에서 읽는 쪽은 항목
# $\min(l, s + 1)$을 본다. 이것이 KV 내놓기(KV publish)이다([halting.kv-publish][]). 그러면 토큰이 보이는 것은 한번
# 정해진 뒤 바뀌지 않으므로, 글을 한꺼번에 읽든 캐시(cache)를 두고 한 토큰씩 읽든 달라지지 않는다. float64에서 둘은
# 끝자리까지 일치한다.

# %%
precise = looplm.load("adder", dtype=torch.float64).model
at_once = precise.think(tokens, wait_to_think, answer=answer)
cache = KVCache(num_loops=6, num_layers=1)
for t in range(tokens.shape[1]):
    one = slice(t, t + 1)
    alone = precise.think(
        tokens[:, one], wait_to_think, answer=answer[:, one], cache=cache
    )
    assert alone.loops_taken[0, 0] == at_once.loops_taken[0, t]
    assert (alone.h[0, 0] - at_once.h[0, t]).abs().max() < 1e-10
print(f"{tokens.shape[1]} tokens, at once or one by one: the same")

# %% [markdown] lang="en"
# ## What it costs, and what it saves {#frontier}
#
# A rule is a point on a map: how many sums it solves, for how much work ([halting.block-evaluations][]). A threshold is
# a way across it. Here are 100 carry-heavy sums of 12 digits ([addition.carry-heavy-set][]) on the left for the adder
# that writes digit after digit, and on the right for the one that gives all digits at once. "Prompt: all loops" lets
# the prompt run as long as the answer may, "prompt: 1 loop" stops it after one; "from loop 2" is how this adder is
# shipped. On the right the prompt stops when its state rests. Below the map, the same as sums solved / block
# evaluations a sum.

# %% [markdown] lang="ko"
# ## 비용과 절약 {#frontier}
#
# 규칙은 지도 위의 한 점이다. 계산량을 얼마나 들여([halting.block-evaluations][]) 문제를 몇 개나 푸는가? 임계값을 바꾸면
# 지도를 가로지르는 곡선이 된다. 받아올림이 많은 12자리 덧셈 100문제([addition.carry-heavy-set][])를, 왼쪽에서는 숫자를
# 하나씩 쓰는 덧셈 모델이, 오른쪽에서는 모든 숫자를 한꺼번에 내놓는 모델이 푼다. "prompt: all loops"는 프롬프트도 답이
# 돌 수 있는 만큼 돌리고, "prompt: 1 loop"는 한 루프에서 멈춘다. "from loop 2"는 이 모델이 배포될 때의 규칙이다.
# 오른쪽의 프롬프트는 상태가 수렴하면 멈춘다. 지도 아래에는 같은 것을 푼 문제 수 / 한 문제의 블록 계산으로 적었다.

# %%
parallel = looplm.load("parallel-adder").model
problems = test_set("carry-heavy", digits=12, count=100, seed=5)
by_hand = collate(problems, "double-reversed", "left-to-right")
at_once = collate(problems, "double-reversed", "parallel")
rest = StateChange(64, epsilon=0.1)
thresholds = (0.5, 0.9, 0.99, 0.999, 0.9999)
maps = {
    "digit by digit 한 자리씩": (
        adder,
        by_hand,
        {
            "fixed, 1-6 loops": [Fixed(n) for n in (1, 2, 3, 4, 5, 6)],
            "confidence, prompt: all loops": [
                ByRole(Confidence(6, threshold=t), Fixed(6)) for t in thresholds
            ],
            "confidence, prompt: 1 loop": [
                ByRole(Confidence(6, threshold=t), Fixed(1)) for t in thresholds
            ],
            "from loop 2, prompt: 2 loops": [
                ByRole(Confidence(6, min_loops=2, threshold=t), Fixed(2))
                for t in thresholds
            ],
        },
    ),
    "all at once 한꺼번에": (
        parallel,
        at_once,
        {
            "fixed, 2-12 loops": [Fixed(n) for n in (2, 4, 6, 8, 10, 12)],
            "confidence": [
                ByRole(Confidence(64, threshold=t), rest) for t in thresholds
            ],
            "confidence, in order": [
                ByRole(Confidence(64, threshold=t, in_order=True), rest)
                for t in (0.9, 0.99, 0.999)
            ],
            "state change": [
                ByRole(StateChange(64, epsilon=e), rest) for e in (0.3, 0.1, 0.03, 0.01)
            ],
            "prefix stability": [
                ByRole(PrefixStability(64, threshold=t, epsilon=0.03), rest)
                for t in (0.5, 0.7, 0.9, 0.99)
            ],
        },
    ),
}
fig, both = plt.subplots(1, 2, figsize=(8, 3.6), layout="constrained", sharey=True)
found, spent = {}, {}
for axes, (title, (model, asked_so, ways)) in zip(both, maps.items(), strict=True):
    for (name, way), marker in zip(ways.items(), "osv^D", strict=False):
        tried = [exact_match(model, asked_so, rule) for rule in way]
        found[title, name] = [int(made.solved.sum()) for made in tried]
        work = [made.block_evaluations.mean().item() for made in tried]
        right = [made.solved.double().mean().item() for made in tried]
        spent[title, name] = work
        axes.plot(work, right, marker=marker, markersize=4, label=name)
    axes.set(title=title, xlabel="block evaluations a sum 블록 계산", xlim=(0, None))
    axes.grid(alpha=0.4)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(fontsize=8, loc="lower right")
both[0].set(ylabel="solved 맞힌 비율", ylim=(0, 1.03))
for (title, name), right in found.items():
    both_counts = zip(right, spent[title, name], strict=True)
    shown = [f"{solved}/{work:.0f}" for solved, work in both_counts]
    print(f"{title.split(' 한')[0]:15} {name:30}", *shown)
assert max(found["all at once 한꺼번에", "confidence"]) < len(problems)
assert max(found["all at once 한꺼번에", "prefix stability"]) == len(problems)
assert max(found["all at once 한꺼번에", "confidence, in order"]) == len(problems)

# %% [markdown] lang="en"
# Read it in both directions. On the left, confidence with a prompt that runs all loops costs more than two fixed loops
# for all, and is no more accurate: halting the answer alone forgets that most tokens stand in the prompt. Told to wait
# for the second loop, it is two fixed loops again, with a third in hand for a token that is not sure. On the right,
# none of these thresholds of confidence alone reaches the top. Waiting for the slots before it, which any rule may be
# told to do ([halting.in-order][]), brings it there; prefix stability gets there for less work, and for less than fixed
# loops on these sums, which are full of carries. On uniform sums a few fixed loops do as well ([chapter
# 4](../examples/04_thinking_longer.py#results)). These curves show a trade, they do not choose: whoever picks a
# threshold on a test set has fitted it to that set, and the thresholds here are drawn on the very sums that they are
# shown on.
#
# ## Not true: a higher threshold, more loops {#not-true}
#
# On a *given* sequence of confidences a higher threshold cannot give fewer loops ([halting.threshold-monotone][]). On a
# text it can, and we need not believe it: search three-digit sums for a slot that stops earlier under the higher
# threshold.

# %% [markdown] lang="ko"
# 양쪽을 다 읽어 보자. 왼쪽에서 프롬프트를 끝까지 돌리면서 답만 확신도로 멈추면, 모두 두 루프로 고정한 것보다 비싼데 더
# 정확하지는 않다. 토큰의 대부분이 프롬프트에 있기 때문이다. 둘째 루프까지 기다리게 하면 두 루프로 고정한 것과 같아지고,
# 확신하지 못한 토큰에는 셋째 루프가 남는다. 오른쪽에서는 확신도만 보아서는 여기의 어떤 임계값도
# 꼭대기에 이르지 못한다. 어느 규칙에나 지정할 수 있는 대로 앞의 빈칸(slot)을 기다리게 하면([halting.in-order][])
# 이른다. 앞부분 안정(prefix stability)은 더 적은 계산량으로 이르며, 받아올림이 많은 이 문제들에서는 고정 루프보다도
# 적게 든다. 균등 추출한 문제에서는 적은 수의 고정 루프로도 충분하다([4장](../examples/04_thinking_longer.py#results)).
# 이 곡선은 무엇을 주고 무엇을 얻는지를 보일 뿐, 골라 주지는 않는다. 테스트하는 문제에서 임계값을 고르면 그 문제에 맞춘
# 것이 되며, 여기서도 그림을 그린 바로 그 문제에서 임계값을 바꾸어 본 것이다.
#
# ## 사실이 아닌 것: 임계값이 높으면 루프가 많다 {#not-true}
#
# *주어진* 확신도의 열에서는 임계값을 높여도 루프가 줄지 않는다([halting.threshold-monotone][]). 글에서는 줄 수 있다.
# 그냥 믿지 말고 찾아보자. 세 자리 덧셈에서, 임계값을 높였더니 더 일찍 멈추는 빈칸을 찾는다.

# %%
small = test_set("carry-heavy", digits=3, count=200, seed=0)
asked = collate(small, "double-reversed", "parallel")
real = asked.tokens != PAD


def slot_loops(threshold):
    """Loops of each slot, 0 for other tokens."""
    rule = ByRole(Confidence(32, threshold=threshold), Fixed(32))
    taken = parallel.think(asked.tokens, rule, real=real, answer=asked.scored)
    return torch.where(asked.scored, taken.loops_taken, 0)


careless, careful = slot_loops(0.9), slot_loops(0.99)
earlier = (careful < careless).any(1).nonzero()[:, 0]
print(f"{len(earlier)} of {len(small)} sums have a slot that stops earlier at 0.99")
row = int(earlier[0])
print("one of them:", "+".join(small[row : row + 1].numbers()[0]))
print("loops of its slots at 0.90:", *careless[row, asked.scored[row]].tolist())
print("loops of its slots at 0.99:", *careful[row, asked.scored[row]].tolist())
assert len(earlier) > 0

# %% [markdown] lang="en"
# At 0.90 the slots before it stop too soon, and go on showing what they believed then; the slot that depends on them is
# left with wrong keys and values and needs long to settle. At 0.99 they run once more, show what is right, and it is
# done sooner. Thresholds change what others see. So no test of this package claims it, and no page should.
#
# ## What surprised us {#surprise}
#
# That a longer thought can be a worse one. Stop the prompt after one loop, and let the answer think over it for 2 to 6
# loops:

# %% [markdown] lang="ko"
# 0.90에서는 앞의 빈칸들이 너무 일찍 멈추어, 그때의 추측에서 나온 키와 값을 내내 내놓는다. 거기에 의존하는 빈칸은 틀린
# 정보를 받아 오래 안정되지 못한다. 0.99에서는 앞의 빈칸들이 한 루프 더 돌아 맞는 정보를 내놓으므로 더 빨리 끝난다.
# 임계값은 다른 토큰이 보는 것을 바꾼다. 그래서 이 패키지의 어떤 테스트도 그런 주장을 하지 않으며, 어떤 글도 해서는 안
# 된다.
#
# ## 뜻밖이었던 점 {#surprise}
#
# 오래 생각할수록 나빠지기도 한다는 것이다. 프롬프트를 한 루프에서 멈추고, 그것을 두고 답을 2-6루프 생각하게 해 보자.

# %%
by_prompt = {}
for prompt in (1, 2, 6):
    ways = [ByRole(Fixed(loops), Fixed(prompt)) for loops in range(2, 7)]
    by_prompt[prompt] = [
        int((~exact_match(adder, by_hand, way).solved).sum()) for way in ways
    ]
    print(f"prompt of {prompt}, answer of 2-6 loops: missed", *by_prompt[prompt])
assert by_prompt[1][0] == 0 and by_prompt[1][-1] > 90
assert max(by_prompt[2]) < 5 and max(by_prompt[6]) == 0

# %% [markdown] lang="en"
# Two loops over a prompt of one loop are perfect; six miss nearly every sum. Give the prompt one loop more, and hardly
# anything is lost. In training all tokens of a batch run equally many loops, so an answer in loop 5 over a prompt that
# stopped after loop 1 reads what this model has never seen, and every loop takes it further from home. To be allowed to
# stop early is one thing; to have practised it is another.
#
# ## Exercises {#exercises}
#
# Each exercise has a test. Write your own solution in place of ours, and run the cell: no error means solved.
#
# **1.** Write a rule of your own: a token is ready when it has been at least 90 % sure after *two* loops in a row.
# (`Evidence` has `confidence` and `previous_confidence`; inherit from `Fixed` and write `ready`.)

# %% [markdown] lang="ko"
# 한 루프짜리 프롬프트를 두고 두 루프를 돌면 완벽한데, 여섯 루프를 돌면 거의 모두 틀린다. 프롬프트에 한 루프만 더 주면
# 거의 놓치지 않는다. 훈련에서는 배치의 모든 토큰이 같은 수의 루프를 돈다. 그러니 루프 1에서 멈춘 프롬프트를 루프 5의 답이
# 읽는다면 이 모델이 한 번도 본 적 없는 것을 읽는 셈이고, 루프를 거듭할수록 훈련한 분포에서 멀어진다. 일찍 멈추어도 되는
# 것과 그렇게 훈련한 것은 다르다.
#
# ## 연습 문제 {#exercises}
#
# 연습 문제마다 테스트가 있다. 우리 풀이 자리에 자기 풀이를 쓰고 셀을 실행해 보자. 오류가 없으면 푼 것이다.
#
# **1.** 규칙을 하나 만들어 보자. *이어지는 두* 루프 뒤의 확신도가 모두 90 % 이상이면 토큰은 준비된 것이다.
# (`Evidence`에 `confidence`와 `previous_confidence`가 있다. `Fixed`를 이어받아 `ready`를 쓴다.)


# %%
def check_sure_twice(rule):
    """Each token stops with the second of the first two sure loops, or at the end."""
    after = run.logits_per_loop.softmax(-1).amax(-1)[:, 0]  # [L, T]
    for t, s in enumerate(stops(rule, run)[0].tolist()):
        sure = [p >= 0.9 for p in after[:, t].tolist()]
        twice = [l for l in range(2, 6) if sure[l - 1] and sure[l - 2]]
        assert s == min([*twice, 6]), f"token {t} stopped after {s} loops"


# %% tags=["solution"]
class SureTwice(Fixed):
    """Ready after two sure loops in a row."""

    def ready(self, seen):
        """Tokens that were sure, and still are."""
        return torch.minimum(seen.confidence, seen.previous_confidence) >= 0.9


check_sure_twice(SureTwice(6))

# %% [markdown] lang="en"
# **2.** The adder that writes digit after digit has such a counterexample too: a sum in which *some token of the answer*
# stops earlier when *the prompt's* threshold is higher. Find one, and the two thresholds. (The answer's threshold is
# 0.9999.)

# %% [markdown] lang="ko"
# **2.** 숫자를 하나씩 쓰는 덧셈 모델에도 그런 반례가 있다. *프롬프트*의 임계값을 높였더니 *답의 어떤 토큰*이 더 일찍
# 멈추는 덧셈이다. 그 덧셈과 두 임계값을 찾아보자. (답의 임계값은 0.9999이다.)


# %%
def check_counterexample(problem, low, high):
    """Some answer token takes fewer loops with the prompt's higher threshold."""
    assert low < high
    asked = collate(
        problems_of([parse_problem(problem)]), "double-reversed", "left-to-right"
    )
    taken = []
    for threshold in (low, high):
        rule = ByRole(
            Confidence(6, threshold=0.9999), Confidence(6, threshold=threshold)
        )
        thoughts = adder.think(asked.tokens, rule, answer=asked.scored)
        taken.append(thoughts.loops_taken[asked.scored])
    assert (taken[1] < taken[0]).any(), "no token of the answer stopped earlier"


# %% tags=["solution"]
check_counterexample("374+678", low=0.3, high=0.9)

# %% [markdown] lang="en"
# The rules are [`looplm.loop.halting`][looplm.loop.halting], their clauses [the spec's page](../spec/halting.md). The
# next chapter takes the rule that waits for its neighbours to where it is needed.

# %% [markdown] lang="ko"
# 규칙은 [`looplm.loop.halting`][looplm.loop.halting]에, 조항은 [명세](../spec/halting.ko.md)에 있다. 다음 장에서는 이웃을
# 기다리는 규칙이 꼭 필요한 곳으로 간다.

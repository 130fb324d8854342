"""Hardware: the eighth chapter. Read it on the site, or run it: python examples/08_hardware.py."""

# %% [markdown] lang="en"
# # Hardware {#hardware-chapter}
#
# **What you will see.** A run planned before it is paid for: what a loop saves and what it does not, whether a step fits,
# which wall a device hits first, and how all of this changes with loops and rows. Then the predictions beside what was
# measured: memory to within a few per cent, and time, where only one direction is promised.

# %% [markdown] lang="ko"
# # 하드웨어 {#hardware-chapter}
#
# **무엇을 보게 되는가.** 비용을 들이기 전에 실행을 계획한다. 루프가 줄이는 것과 줄이지 못하는 것, 한 스텝이 메모리에
# 들어가는지, 장치의 어느 자원이 먼저 한계에 이르는지, 그것이 루프 수와 행 수에 따라 어떻게 바뀌는지 본다. 그런 다음
# 예측을 측정한 값 옆에 놓는다. 메모리는 몇 퍼센트 안에서 맞고, 시간은 한 방향만 보장한다.

# %% [markdown] lang="en"
# ## The idea {#idea}
#
# Before a run there is nothing to measure, but much to count. The weights have a size; each token costs so many
# operations in each loop; each pass reads so many bytes. A device has rates for both. None of it says how fast a program
# *is*. It says how fast it can be at most, and that alone settles many questions: a run that cannot fit need not be
# started.

# %% [markdown] lang="ko"
# ## 아이디어 {#idea}
#
# 실행하기 전에는 측정할 것이 없지만 셀 것은 많다. 가중치에는 크기가 있고, 토큰은 루프마다 정해진 만큼의 연산이 들고, 한
# 번 통과하려면 정해진 바이트를 읽어야 한다. 장치에는 연산과 읽기의 속도가 있다. 그렇다고 프로그램이 얼마나 *빠른지*를
# 알 수는 없다. 아무리 빨라야 얼마인지를 알 뿐인데, 그것만으로도 많은 질문에 답할 수 있다. 메모리에 들어갈 수 없는
# 실행은 시작할 필요가 없다.

# %% [markdown] lang="en"
# ## The equation {#equation}
#
# A pass of $F$ operations that moves $M$ bytes of memory and $C$ bytes of the last cache takes at least
#
# $$T \;\ge\; \max\Big(\frac{F}{\text{rate}},\; \frac{M}{\text{bandwidth}},\; \frac{C}{\text{cache bandwidth}}\Big)$$
#
# and the largest of the three is the wall that it hits: this is the roofline ([hardware.roofline][]). The counts are the
# spec's ([hardware.forward-flops][], [hardware.traffic][]), the rates come from a device's profile, each with its source
# ([hardware.sources][]).
#
# ## What a loop saves {#saves}
#
# Two models of twelve applications of a layer: one loops a single layer twelve times, the other has twelve layers of its
# own. The same width, text and batch.

# %% [markdown] lang="ko"
# ## 식 {#equation}
#
# 연산이 $F$개이고 메모리의 $M$바이트와 마지막 캐시의 $C$바이트를 옮기는 통과는 적어도 이만큼 걸린다.
#
# $$T \;\ge\; \max\Big(\frac{F}{\text{rate}},\; \frac{M}{\text{bandwidth}},\; \frac{C}{\text{cache bandwidth}}\Big)$$
#
# 셋 가운데 가장 큰 것이 병목이고, 이것이 지붕선(roofline)이다([hardware.roofline][]). 세는 법은 명세에
# 있고([hardware.forward-flops][], [hardware.traffic][]), 속도는 장치의 프로필(profile)에서 온다. 수마다 출처가
# 있다([hardware.sources][]).
#
# ## 루프가 줄이는 것 {#saves}
#
# 층을 열두 번 통과하는 모델이 둘 있다. 하나는 층 하나를 열두 번 돌고, 다른 하나는 저마다 다른 층이 열둘이다. 폭과 글과
# 배치는 같다.

# %%
import json
from dataclasses import replace
from textwrap import fill

import matplotlib.pyplot as plt

from looplm.hardware.plan import decode_speed, make_plan, with_loops
from looplm.hardware.profile import load_profile
from looplm.hardware.setting import Setting, training_peak
from looplm.hardware.units import human
from looplm.resources import resource
from looplm.spec import oracle
from looplm.train.workloads import find_workload

rules = oracle("hardware")
looped = find_workload("looplm-384")
layers = replace(looped.model, body="static", layers=12, state_norm=False)
unshared = replace(looped, model=layers, num_loops=1, first_read=1)
setting = Setting(rows=64, parts=1, dtype="float32", recompute=False)
counted = {}
for name, work in (("looped", looped), ("unshared", unshared)):
    tokens, loops = work.context_tokens, work.num_loops
    counted[name] = {
        "parameters": sum(rules.parameters(work.model).values()),
        "operations of a new token": rules.forward_flops(
            work.model, 1, tokens, loops, 1
        ),
        "keys and values of a row": rules.cache_bytes(work.model, tokens, loops, 4),
        "peak of a training step": training_peak(work, setting),
    }
print(f"{'':26}{'12 loops':>16}{'12 layers':>16}")
for what, value in counted["looped"].items():
    other = counted["unshared"][what]
    print(f"{what:26}{value:16,}{other:16,}   {other / value:5.2f}x")
ratio = {w: counted["unshared"][w] / v for w, v in counted["looped"].items()}
assert ratio["parameters"] > 11 and ratio["keys and values of a row"] == 1

# %% [markdown] lang="en"
# Looping saves weights: what is stored, sent, and held by the optimizer. It saves no operation and no key or value,
# because a token does the same work and shows itself once a loop. In a training step of 64 rows the activations outweigh
# the weights, and they are kept for every loop ([hardware.kept-bytes][]). What saves operations is halting, and no plan
# knows that in advance.
#
# ## A plan {#plan}
#
# [`make_plan`][looplm.hardware.plan.make_plan] is what `looplm plan` prints: a line a number, each with the clause that
# computes it.

# %% [markdown] lang="ko"
# 루프는 가중치를 줄인다. 저장하고 전송하고 최적화기가 유지해야 하는 것이 줄어든다. 연산은 하나도 줄이지 못하고 키와
# 값도 마찬가지이다. 토큰의 계산은 같고, 루프마다 키와 값을 한 번씩 내놓아야 하기 때문이다. 64행짜리 훈련 스텝에서는
# 활성값(activations)이 가중치보다 큰데, 이것은 루프마다 남겨야 한다([hardware.kept-bytes][]). 연산을 줄이는 것은
# 정지이며, 얼마나 줄일지는 어떤 계획도 미리 알지 못한다.
#
# ## 계획 {#plan}
#
# `looplm plan`이 출력하는 것이 [`make_plan`][looplm.hardware.plan.make_plan]이다. 수마다 한 줄이고, 줄마다 그 수를
# 계산하는 조항이 적혀 있다.

# %%
plan = make_plan(find_workload("looplm-256"), load_profile("rtx4090"))
for line in plan.lines:
    if line.what in (
        "all",
        "peak",
        "a step, at least",
        "cache of a row",
        "decode, 1 row, at most",
    ):
        print(
            f"{line.what:24} {human(line.value, line.unit):>16}   {line.clause:24} {line.note}"
        )
assert plan.fits

too_much = make_plan(find_workload("medium"), load_profile("rtx4090"), rows=64)
print(fill(f"medium, 64 rows at once: {too_much.refusal}"))
assert not too_much.fits

# %% [markdown] lang="en"
# A step that does not fit is refused before it starts, with what would fit ([hardware.refusal][]).
#
# ## Which wall? {#walls}
#
# One row of a small model hits the cache's wall: its weights are read in every loop. More rows share that reading, so
# tokens get cheaper, until they want what they cannot share: operations, or each row's own keys and values. Where those
# no longer fit into the last cache, all is read from memory, and the line falls.

# %% [markdown] lang="ko"
# 들어가지 않는 스텝은 시작하기 전에 거절하고, 무엇이면 들어가는지 알려 준다([hardware.refusal][]).
#
# ## 병목은 어디인가 {#walls}
#
# 작은 모델의 한 행에서는 캐시가 병목이다. 루프마다 가중치를 읽기 때문이다. 행이 늘면 그 읽기를 나누므로 토큰의 비용이
# 줄다가, 나누지 못하는 것, 곧 연산이나 행마다 따로 있는 키와 값이 한계가 된다. 키와 값이 마지막 캐시에 더는 들어가지
# 않으면 모두 메모리에서 읽게 되어 선이 내려간다.

# %%
work = find_workload("looplm-256")
fig, (by_loops, by_rows) = plt.subplots(1, 2, figsize=(8, 3.2), layout="constrained")
walls = {}
for name, colour in (("h200", "#3f7fd9"), ("rtx4090", "#d98a3f"), ("m4max", "#4f9d69")):
    profile = load_profile(name)
    loops, rows = (1, 2, 4, 8, 12, 24), [4**n for n in range(7)]
    one = [decode_speed(with_loops(work, l), profile, 1) for l in loops]
    many = [decode_speed(work, profile, n) for n in rows]
    look = {"color": colour, "label": name, "marker": "o", "markersize": 3}
    by_loops.plot(loops, [speed.tokens_per_s for speed in one], **look)
    by_rows.plot(rows, [speed.tokens_per_s for speed in many], **look)
    walls[name] = [speed.wall for speed in many]
    print(f"{name:8} walls, 1 to {rows[-1]:,} rows:", *walls[name])
by_loops.set(xlabel="loops 루프", ylabel="tokens/s, at most 많아야")
by_rows.set(xlabel="rows 행")
for axes in (by_loops, by_rows):
    axes.set(xscale="log", yscale="log")
    axes.grid(alpha=0.4)
    axes.legend(fontsize=8)
    axes.spines[["top", "right"]].set_visible(False)
assert walls["h200"][0] == "cache" and walls["h200"][-1] == "memory"

# %% [markdown] lang="en"
# ## Predicted and measured {#measured}
#
# The repository measures itself: `make hardware` profiles the machine, predicts, runs, and writes both down. First
# memory, the most bytes of tensors alive at one time in a training step.

# %% [markdown] lang="ko"
# ## 예측과 측정 {#measured}
#
# 이 저장소는 스스로를 측정한다. `make hardware`는 기계를 측정하고, 예측하고, 실행해 보고, 둘 다 적어 둔다. 먼저 메모리,
# 곧 훈련 스텝에서 동시에 살아 있는 텐서의 최대 바이트이다.

# %%
found = json.loads((resource("docs/data") / "hardware.json").read_text())
print("on", found["circumstances"]["device"], found["profile"]["title"])
for line in found["memory"]:
    off = line["predicted_bytes"] / line["measured_bytes"] - 1
    name = f"{line['size']}, {line['rows']} rows"
    measured = human(line["measured_bytes"], "bytes")
    print(f"{name:30} measured {measured:>10}   predicted {off:+.1%}")
    assert abs(off) < 0.05

# %% [markdown] lang="en"
# Then time. Each point is a pass of a drawn size: the roofline's time to the right, the measured one upwards. A point
# below the line would be a run faster than possible, that is, a wrong formula ([hardware.never-faster][]).

# %% [markdown] lang="ko"
# 다음은 시간이다. 점 하나는 무작위로 고른 크기의 모델을 한 번 실행한 결과이며, 가로가 지붕선의 시간이고 세로가 측정한
# 시간이다. 선 아래의 점은 있을 수 없을 만큼 빠른 실행, 곧 틀린 식이라는 뜻이다([hardware.never-faster][]).

# %%
fig, axes = plt.subplots(figsize=(5, 3.6), layout="constrained")
reached = {}
for kind, marker in (("training", "o"), ("prefill", "s"), ("decode", "^")):
    points = [
        (p["roofline_s"], p["measured_s"]) for p in found["speed"] if p["pass"] == kind
    ]
    axes.plot(*zip(*points, strict=True), marker, markersize=4, label=kind)
    shares = sorted(least / took for least, took in points)
    reached[kind] = shares[len(shares) // 2]
    print(f"{kind:9} reached {shares[0]:.1%} to {shares[-1]:.1%} of the roofline")
    assert shares[-1] <= 1
ends = axes.get_xlim()
axes.plot(ends, ends, color="gray", linestyle="--", linewidth=1)
axes.set(
    xscale="log", yscale="log", xlabel="roofline 지붕선, s", ylabel="measured 측정, s"
)
axes.legend(fontsize=9)
axes.grid(alpha=0.4)
axes.spines[["top", "right"]].set_visible(False)
assert reached["decode"] < 1 / 12 < reached["training"]  # the middle of each

# %% [markdown] lang="en"
# ## What surprised us {#surprise}
#
# How far apart the two kinds of prediction are. Memory can be foretold to the per cent, from the shapes alone; time to
# within a factor, and for decoding it is a large one: half of those passes reached less than a twelfth of their
# roofline. We put most of the distance down to Python, small operations and launches: what [the chapter
# before](../examples/07_kernel.py) is about.
#
# ## Exercises {#exercises}
#
# Each exercise has a test. Write your own solution in place of ours, and run the cell: no error means solved.
#
# **1.** How many loops may `looplm-256` run for each token, if one row on an H200 shall be able to give a million tokens
# a second at its roofline?

# %% [markdown] lang="ko"
# ## 뜻밖이었던 점 {#surprise}
#
# 두 예측이 이렇게 다르다는 점이다. 메모리는 모양만 보고도 퍼센트까지 맞히는데, 시간은 몇 배인지를 말할 뿐이고
# 디코딩에서는 그 배수가 크다. 절반은 지붕선의 12분의 1에도 이르지 못했다. 그 차이는 대부분 파이썬과 작은 연산과 커널
# 실행에서 온다고 우리는 본다. [앞 장](../examples/07_kernel.py)이 그것을 다룬다.
#
# ## 연습 문제 {#exercises}
#
# 연습 문제마다 테스트가 있다. 우리 풀이 자리에 자기 풀이를 쓰고 셀을 실행해 보자. 오류가 없으면 푼 것이다.
#
# **1.** H200에서 한 행이 지붕선으로 1초에 100만 토큰을 낼 수 있으려면, `looplm-256`은 토큰마다 몇 루프까지 돌 수 있는가?


# %%
def check_most_loops(loops):
    """A million tokens a second can be reached, and not with one loop more."""
    profile = load_profile("h200")
    assert decode_speed(with_loops(work, loops), profile, 1).tokens_per_s >= 1e6
    assert decode_speed(with_loops(work, loops + 1), profile, 1).tokens_per_s < 1e6


# %% tags=["solution"]
most = max(
    loops
    for loops in range(1, 100)
    if decode_speed(with_loops(work, loops), load_profile("h200"), 1).tokens_per_s
    >= 1e6
)
check_most_loops(most)
print(most, "loops")

# %% [markdown] lang="en"
# **2.** Predict the parameters of `looplm-384` by hand. Embedding: vocabulary times width; attention: four square
# matrices; MLP: two matrices (GELU); norms: one number for each component, of the two in the layer, the state's, and the
# head's.

# %% [markdown] lang="ko"
# **2.** `looplm-384`의 파라미터를 직접 세어 보자. 임베딩은 어휘 곱하기 폭, 어텐션은 정사각 행렬 넷, MLP는 행렬
# 둘(GELU), 정규화는 층 안의 둘과 상태의 것과 헤드의 것에서 성분마다 수 하나씩이다.


# %%
def check_parameters(count):
    """The same as the formula's, and as the model's."""
    assert count(looped.model) == counted["looped"]["parameters"]


# %% tags=["solution"]
def count(model):
    """One layer, tied head."""
    d = model.width
    return model.vocab_size * d + 4 * d * d + 2 * d * model.mlp_width + 4 * d


check_parameters(count)

# %% [markdown] lang="en"
# Plans, devices and all predictions beside measurements are on [the page of costs](../docs/hardware.md); the formulas are
# [the spec's](../spec/hardware.md).

# %% [markdown] lang="ko"
# 계획과 장치, 그리고 모든 예측과 측정은 [비용을 다룬 페이지](../docs/hardware.ko.md)에 있고, 식은
# [명세](../spec/hardware.ko.md)에 있다.

"""The kernel: the seventh chapter. Read it on the site, or run it: python examples/07_kernel.py."""

# %% [markdown] lang="en"
# # The kernel {#kernel-chapter}
#
# **What you will see.** Where the time of a small looped model goes, counted in operations and in bytes; why its loop
# fits into one launch of one program, as no stack of different layers does; and three versions of that loop giving the
# same result: the package's own, the kernels' plain reference, and the fused one, here on your CPU in Triton's
# interpreter.

# %% [markdown] lang="ko"
# # 커널 {#kernel-chapter}
#
# **무엇을 보게 되는가.** 작은 루프 모델의 시간이 어디로 가는지를 연산의 수와 바이트로 센다. 서로 다른 층을 쌓은 모델과
# 달리, 루프 전체를 왜 커널 한 번 실행으로 처리할 수 있는지 본다. 그리고 세 가지 루프, 곧 패키지의 것과 커널의 기준
# 구현과 융합 커널이 같은 결과를 내는지 확인한다. 융합 커널도 여기서는 Triton의 인터프리터로 CPU에서 실행한다.

# %% [markdown] lang="en"
# ## The idea {#idea}
#
# A GPU does what it is told, one program (a *kernel*) after another, and telling takes time. A loop of a small model is a
# string of small operations. Each is launched, reads its numbers from memory, writes them back and ends; and after each
# loop the host asks whether any token still thinks. But a loop is a loop. Nothing in it changes from round to round but
# the state. So let one program be launched once, go round by itself, and end when all its tokens have halted.

# %% [markdown] lang="ko"
# ## 아이디어 {#idea}
#
# GPU는 프로그램(*커널*, kernel)을 하나씩 실행하는데, 실행을 시작하는 데에도 시간이 든다. 작은 모델의 루프는 작은 연산을
# 이어 놓은 것이다. 연산은 저마다 따로 실행되어, 메모리에서 수를 읽고, 다시 쓰고, 끝난다. 루프가 끝날 때마다 호스트는
# 아직 생각하는 토큰이 있는지 확인한다. 그러나 루프에서 돌 때마다 바뀌는 것은 상태뿐이다. 그러니 프로그램 하나를 한 번만
# 실행하여 스스로 반복하게 하고, 토큰이 모두 멈추면 끝나게 하자.

# %%
import os

# Before Triton is imported: its interpreter needs no GPU.
os.environ.setdefault("TRITON_INTERPRET", "1")
import inspect
import math
from importlib.util import find_spec

import matplotlib.pyplot as plt
import torch
from looplm_kernels.loop import loop, reference
from looplm_kernels.state import Rule, empty
from torch.utils._python_dispatch import TorchDispatchMode

import looplm
from looplm.hardware.profile import load_profile
from looplm.loop.halting import observe
from looplm.loop.halting.confidence import Confidence
from looplm.spec import oracle
from looplm.tasks.addition.problems import (
    EOS,
    SYMBOLS,
    collate,
    parse_problem,
    problems_of,
)
from looplm.think.backends import kernel_weights
from looplm.think.generate import generate

torch.set_grad_enabled(False)
torch.set_num_threads(1)
adder = looplm.load("adder").model
question = collate(
    problems_of([parse_problem("58+67")]), "double-reversed", "left-to-right"
)


class Counting(TorchDispatchMode):
    """Counts torch operations that compute something; views are free."""

    count = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        """One operation."""
        self.count += "view" not in str(function) and not function.is_view
        return function(*args, **(kwargs or {}))


tokens, asked = question.tokens, question.scored
x0, view = adder.embed(tokens, torch.ones_like(asked))
h0, nothing = torch.zeros_like(x0), torch.full_like(tokens, -1)
with Counting() as one_loop:
    h1 = adder.step(h0, x0, 1, view)
    logits = adder.logits(h1)
    seen = observe(1, h1, h0, logits, nothing, h0[..., 0], asked, asked)
    halted = Confidence(6, threshold=0.99)(seen)
    frozen = torch.where(asked[..., None], h1, h0)
print(
    f"one loop of the adder: {one_loop.count} operations; six loops: {6 * one_loop.count}"
)
assert one_loop.count > 40

# %% [markdown] lang="en"
# Each of these is a launch of its own on a GPU, unless somebody fuses them. A fused kernel makes one of six loops
# ([kernels.one-launch][]).
#
# ## The equation {#equation}
#
# Let $W$ be the bytes of a block's weights. A stack of $L$ different layers must read $L\,W$ bytes for a token. A loop
# reads the same $W$ again and again, and after the first round they lie near:
#
# $$\text{bytes from memory} = L\,W \ \ (\text{unshared}), \qquad W \ \ (\text{looped, if } W \le \text{cache})$$
#
# How near? The spec counts what a loop reads and computes ([kernels.bytes][], [kernels.flops][]), and a profile says how
# large a device's memories are. Bytes of one loop's weights in 16 bits, by width:

# %% [markdown] lang="ko"
# GPU에서는 융합하지 않는 한 이 하나하나를 따로 실행한다. 융합 커널은 여섯 루프를 실행 한 번으로
# 만든다([kernels.one-launch][]).
#
# ## 식 {#equation}
#
# 블록의 가중치를 $W$바이트라 하자. 서로 다른 층 $L$개를 쌓은 모델은 토큰 하나에 $L\,W$바이트를 읽어야 한다. 루프는 같은
# $W$를 반복해서 읽으며, 한 번 돌고 나면 그것은 가까운 캐시에 있다.
#
# $$\text{bytes from memory} = L\,W \ \ (\text{unshared}), \qquad W \ \ (\text{looped, if } W \le \text{cache})$$
#
# 얼마나 가까운가? 루프가 읽고 계산하는 것은 명세의 식으로 세고([kernels.bytes][], [kernels.flops][]), 장치의 메모리
# 크기는 프로필(profile)에 있다. 한 루프의 가중치를 16비트로 둘 때의 바이트를 폭마다 센다.

# %%
rules = oracle("kernels")
device = load_profile("h200")
shared = device.kernels.shared_memory_bytes
cache = int(device.cache_mib * 2**20)
print(f"{device.title}: shared memory {shared:,} bytes a block, L2 {cache:,}")


def weight_bytes(width):
    """Of one loop, MLP of four times the width, vocabulary of 15, no keys read."""
    return rules.bytes_per_loop(width, 4 * width, 15, gated=False, rows=0, seen=0)


for width in (64, 128, 256, 384, 1024):
    size = weight_bytes(width)
    where = "shared memory" if size <= shared else "L2" if size <= cache else "memory"
    print(f"width {width:5}: {size:11,} bytes, fit in {where}")
assert weight_bytes(64) <= shared < weight_bytes(128) < weight_bytes(1024) <= cache

# %% [markdown] lang="en"
# So the dream of pinning the weights in one multiprocessor's shared memory ends at width 128. It is not needed either: L2
# holds them by itself, because every loop reads them again. What must stay close is the state, and that is small: a
# program owns 16 rows and keeps their state in registers, reading the weights once for all 16.
#
# ## How much of it is waiting {#waiting}
#
# The least time that reading the weights of width 256 takes, loop after loop: each time from memory, as layers that are
# all different must be, or once from memory and then from L2. These are floors from a data sheet, not measurements.

# %% [markdown] lang="ko"
# 그러니 가중치를 멀티프로세서 하나의 공유 메모리(shared memory)에 고정하는 방법은 폭 128부터 쓸 수 없다. 그럴 필요도
# 없다. 루프마다 다시 읽으므로 저절로 L2에 남는다. 가까이 두어야 하는 것은 상태이고, 상태는 작다. 프로그램은 16행을 맡아
# 그 상태를 레지스터에 두고, 가중치를 16행을 위해 한 번 읽는다.
#
# ## 얼마나 기다리는가 {#waiting}
#
# 폭 256의 가중치를 루프마다 읽는 데 드는 가장 짧은 시간이다. 저마다 다른 층처럼 매번 메모리에서 읽을 때와, 한 번만
# 메모리에서 읽고 나머지는 L2에서 읽을 때를 비교한다. 측정이 아니라 사양서에서 나온 하한이다.

# %%
loops = range(1, 25)
once = weight_bytes(256)
from_memory = [1e6 * l * once / (device.memory_gb_per_s * 1e9) for l in loops]
from_cache = [
    1e6
    * (
        once / (device.memory_gb_per_s * 1e9)
        + (l - 1) * once / (device.cache_gb_per_s * 1e9)
    )
    for l in loops
]
fig, axes = plt.subplots(figsize=(6, 2.8), layout="constrained")
axes.plot(
    loops,
    from_memory,
    "o-",
    ms=3,
    color="#d98a3f",
    label="unshared layers 서로 다른 층",
)
axes.plot(loops, from_cache, "o-", ms=3, color="#3f7fd9", label="loops 루프")
axes.set(xlabel="loops or layers 루프나 층", ylabel="µs", ylim=(0, None))
axes.legend(fontsize=9)
axes.grid(alpha=0.4)
axes.spines[["top", "right"]].set_visible(False)
print(
    f"12 loops: {from_memory[11]:.2f} µs from memory, {from_cache[11]:.2f} µs with L2"
)
assert from_cache[11] < from_memory[11]

# %% [markdown] lang="en"
# A few microseconds, either way. So it can hardly be the reading that a small model waits for; what stands around it is
# hundreds of launches, and the host's questions between them. That is the case for one launch. Whether it *is* faster
# only a GPU can say; [one has been asked](../docs/kernels.md#kernels-measured).
#
# ## The plain one {#reference}
#
# `reference.py` is the truth that the fused kernel is tested against: plain torch, one text and one loop at a time
# ([kernels.reference][]). This is KV publish in it: an entry is written by every token that has taken exactly the loops
# before this one, so by those that still think, and once more by those that have just halted ([halting.kv-publish][]).

# %% [markdown] lang="ko"
# 어느 쪽이든 몇 마이크로초이다. 그러니 작은 모델이 기다리는 것이 메모리 읽기일 리는 없다. 그 앞뒤에는 수백 번의 커널
# 실행과 그 사이 호스트의 확인이 있다. 한 번만 실행할 만하다. 정말로 *빠른지*는 GPU만이 답할 수 있고,
# [답을 얻었다](../docs/kernels.ko.md#kernels-measured).
#
# ## 기준 구현 {#reference}
#
# `reference.py`는 융합 커널이 맞추어야 할 정답이다. 순수 torch로, 글 하나씩, 루프 하나씩
# 계산한다([kernels.reference][]). 그 안의 KV 내놓기는 이렇게 생겼다. 지금까지의 루프를 하나도 빠짐없이 돈 토큰이 항목을
# 쓴다. 곧 아직 생각하는 토큰이 쓰고, 막 멈춘 토큰이 한 번 더 쓴다([halting.kv-publish][]).

# %%
lines = inspect.getsource(reference.think_about_one_text).splitlines()
start = next(i for i, line in enumerate(lines) if "halting.kv-publish" in line)
print(*(line[4:] for line in lines[start : start + 5]), sep="\n")

# %% [markdown] lang="en"
# ## The fused one, without a GPU {#fused}
#
# `fused.py` is the same in Triton: one launch for all loops of all tokens. Triton's interpreter runs the program on a
# CPU, slowly and faithfully. The kernels take tensors, not models, so we hand them the adder's weights and an empty
# state, filled with NaN wherever nobody has written; whoever reads what was not written will be caught
# ([kernels.only-what-was-written][]).

# %% [markdown] lang="ko"
# ## GPU 없이 실행하는 융합 커널 {#fused}
#
# `fused.py`는 같은 것을 Triton으로 쓴 것으로, 모든 토큰의 모든 루프를 커널 한 번 실행으로 처리한다. Triton의
# 인터프리터는 그 프로그램을 CPU에서 느리지만 그대로 실행한다. 커널은 모델이 아니라 텐서를 받으므로, 덧셈 모델의
# 가중치와 빈 상태를 건넨다. 아무도 쓰지 않은 곳은 NaN으로 채워 두어, 쓰지 않은 것을 읽으면
# 드러난다([kernels.only-what-was-written][]).

# %%
backends = ["reference", "triton"] if find_spec("triton") else ["reference"]
weights = kernel_weights(adder)
length = tokens.shape[1]
states = {}
for backend in backends:
    state = empty(weights, batch=1, tokens=length, num_loops=4, fill=math.nan)
    state.tokens[0, :length] = tokens[0]
    state.ask(0.99)
    first, last = torch.tensor([0]).int(), torch.tensor([length]).int()
    loop(weights, state, first, last, Rule(max_loops=4), backend=backend)
    states[backend] = state
    assert not state.h[0, :length].isnan().any()

package = adder.think(tokens, Confidence(4, threshold=0.99))
print("token    ", *(f"{SYMBOLS[token]:>5}" for token in tokens[0].tolist()))
print("package  ", *(f"{n:5}" for n in package.loops_taken[0].tolist()))
for backend, state in states.items():
    taken, h = state.loops_taken[0, :length].long(), state.h[0, :length]
    print(f"{backend:9}", *(f"{n:5}" for n in taken.tolist()))
    assert torch.equal(taken, package.loops_taken[0])
    torch.testing.assert_close(h, package.h[0], atol=5e-5, rtol=1e-4)

# %% [markdown] lang="en"
# Equal loops, and states within the tolerance that the kernel's README gives a reason for
# ([kernels.same-as-reference][]). Nobody who uses the package has to do this by hand:
# [`generate`][looplm.think.generate.generate] chooses what runs, and says so ([kernels.choice][]).

# %% [markdown] lang="ko"
# 루프 수가 같고, 상태의 차이는 커널의 README가 이유를 밝힌 허용 오차 안에 있다([kernels.same-as-reference][]). 사용자가
# 직접 할 일은 아니다. 무엇으로 실행할지는 [`generate`][looplm.think.generate.generate]가 고르고, 무엇을 골랐는지
# 밝힌다([kernels.choice][]).

# %%
prompt = tokens[:, : int(asked[0].nonzero()[0]) + 1]
rule = Confidence(4, threshold=0.99)
written = {}
for backend in ["torch", *backends]:
    made = generate(
        adder, prompt, halting=rule, max_new_tokens=5, stop_token=EOS, backend=backend
    )
    written[backend] = made.tokens
    print(f"{backend:9} wrote", *(SYMBOLS[t] for t in made.tokens[0]), end="   ")
    print(f"calls: {made.calls}, block evaluations: {made.block_evaluations[0]:.2f}")
assert all(tokens == written["torch"] for tokens in written.values())

# %% [markdown] lang="en"
# The kernels are called once for each token that is written and once for the prompt; the plain path once for each loop,
# with dozens of operations in every call.
#
# ## What is proven, and what is not {#proven}
#
# Results: in the interpreter, on drawn models of every kind. Builds: for GPUs that are not here, registers and shared
# memory counted ([kernels.fits-the-profile][]). Speed: on one GPU, beside the best that torch can do. [The kernels'
# page](../docs/kernels.md#kernels-measured) has the tables, and the command for whoever has another GPU.
#
# ## What surprised us {#surprise}
#
# A loop that halts token by token sounds as if it needed kernels of its own for publishing keys and values, for freezing,
# for compacting the batch. Written out, most of it went away. A token that has just halted passes once more through a
# line that is there anyway, and that is all of KV publish. A program that ends when its rows have halted needs no
# compacting.
#
# And the simpler kernel lost. A program that waits for nobody reads all weights through one multiprocessor, and the best
# that torch can do is faster than that. Programs that wait for each other five times a loop, but keep their weights, are
# faster than both.

# %% [markdown] lang="ko"
# 커널은 프롬프트에 한 번, 쓰는 토큰마다 한 번 호출한다. torch 구현은 루프마다 호출하고, 호출할 때마다 연산이 수십
# 개이다.
#
# ## 증명한 것과 아직 아닌 것 {#proven}
#
# 결과는 온갖 모델을 무작위로 뽑아 인터프리터에서 확인했다. 빌드는 여기에 없는 GPU의 것까지 만들어 레지스터와 공유
# 메모리를 세었다([kernels.fits-the-profile][]). 속도는 GPU 하나에서, torch가 낼 수 있는 가장 빠른 방법과 나란히 측정했다. 표와,
# 다른 GPU가 있는 사람을 위한 명령은 [커널 페이지](../docs/kernels.ko.md#kernels-measured)에 있다.
#
# ## 뜻밖이었던 점 {#surprise}
#
# 토큰마다 멈추는 루프라면 키와 값을 내놓는 커널, 상태를 동결하는 커널, 배치를 추리는 커널이 따로 있어야 할 것 같다.
# 막상 써 보니 대부분 필요 없었다. 막 멈춘 토큰은 어차피 있는 코드 한 줄을 한 번 더 지나며, KV 내놓기는 그것이 전부이다.
# 맡은 행이 모두 멈추면 끝나는 프로그램은 배치를 추릴 필요가 없다.
#
# 그리고 단순한 커널이 졌다. 아무도 기다리지 않는 프로그램은 멀티프로세서 하나로 모든 가중치를 읽으며, torch의 가장 빠른
# 방법보다 느리다. 루프마다 다섯 번 서로를 기다리지만 가중치를 쥐고 있는 프로그램들은 그 둘보다 빠르다.

# %% [markdown] lang="en"
# ## Exercises {#exercises}
#
# Each exercise has a test. Write your own solution in place of ours, and run the cell: no error means solved.
#
# **1.** A kernel finds the most likely token without keeping the logits: chunk by chunk, in one pass
# ([kernels.confidence][]). Write it with a running maximum and a running sum; the probability is then 1 over the sum.

# %% [markdown] lang="ko"
# ## 연습 문제 {#exercises}
#
# 연습 문제마다 테스트가 있다. 우리 풀이 자리에 자기 풀이를 쓰고 셀을 실행해 보자. 오류가 없으면 푼 것이다.
#
# **1.** 커널은 로짓을 저장하지 않고, 조각마다 한 번씩만 지나며 가장 그럴듯한 토큰을 찾는다([kernels.confidence][]).
# 지금까지의 최댓값과 합계를 갱신하도록 써 보자. 확률은 1을 그 합계로 나눈 것이다.


# %%
def check_confidence(largest):
    """The largest probability, from chunks of logits; even of logits beyond exp's range."""
    generator = torch.Generator().manual_seed(0)
    for scale in (1, 10, 1000):
        logits = scale * torch.randn(50, generator=generator, dtype=torch.float64)
        for size in (1, 7, 50):
            found = largest(logits.split(size))
            assert abs(found - float(logits.softmax(0).max())) < 1e-9, (scale, size)


# %% tags=["solution"]
def largest(chunks):
    """In one pass: when the maximum grows, the old sum shrinks with it."""
    top, total = -math.inf, 0.0
    for chunk in chunks:
        new = max(top, float(chunk.max()))
        total = total * math.exp(top - new) + float((chunk - new).exp().sum())
        top = new
    return 1 / total


check_confidence(largest)

# %% [markdown] lang="en"
# **2.** How wide, in multiples of 16, may a model be whose one-loop weights still fit in the shared memory of a block?
# (The same shape as above; other things would need room there too.)

# %% [markdown] lang="ko"
# **2.** 한 루프의 가중치가 블록의 공유 메모리에 아직 들어가는 모델은 폭이 얼마까지 될 수 있는가? 16의 배수로 답해 보자.
# (모양은 위와 같다. 실제로는 다른 것도 거기에 들어가야 한다.)


# %%
def check_widest(width):
    """It fits, and the next does not."""
    assert width % 16 == 0
    assert weight_bytes(width) <= shared < weight_bytes(width + 16)


# %% tags=["solution"]
widest = max(width for width in range(16, 512, 16) if weight_bytes(width) <= shared)
check_widest(widest)
print(widest)

# %% [markdown] lang="en"
# The kernels are [`looplm_kernels`][looplm_kernels.loop], each with a README that derives it; the clauses are [the spec's
# page](../spec/kernels.md).

# %% [markdown] lang="ko"
# 커널은 [`looplm_kernels`][looplm_kernels.loop]에 있고 저마다 식을 유도한 README가 있다. 조항은
# [명세](../spec/kernels.ko.md)에 있다.

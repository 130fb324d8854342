"""One loop: the first chapter. Read it on the site, or run it: python examples/01_one_loop.py."""

# %% [markdown] lang="en"
# # One loop {#one-loop}
#
# **What you will see.** A trained adder solves 68915 + 62898 in front of you, one loop at a time. You will start its
# state at zero, apply its one block by hand, see that more loops cost no more weights, and watch a wrong guess become
# right.

# %% [markdown] lang="ko"
# # 루프 하나 {#one-loop}
#
# **무엇을 보게 되는가.** 훈련을 마친 덧셈 모델이 68915 + 62898을 한 루프(loop)씩 푸는 과정을 본다. 상태를 0에서
# 시작하여 하나뿐인 블록을 직접 적용해 보고, 루프를 늘려도 가중치는 늘지 않음을 확인하고, 틀린 추측이 맞는 답이 되는
# 순간을 본다.

# %% [markdown] lang="en"
# ## The idea {#idea}
#
# Think of adding two long numbers in your head. You do not own a separate piece of brain for the first look at the
# digits, another for the carries and a third for checking. You look again, with the same head, knowing a little more. A
# looped model does this: its state is what it knows so far, and every loop is one more look with the same weights.

# %% [markdown] lang="ko"
# ## 아이디어 {#idea}
#
# 긴 수 둘을 머릿속으로 더한다고 하자. 숫자를 처음 볼 때, 받아올림(carry)을 챙길 때, 다시 확인할 때 쓰는 머리가 따로
# 있지 않다. 조금 더 알게 된 같은 머리로 다시 볼 뿐이다. 루프 모델도 그렇다. 상태는 지금까지 알아낸 것이고, 루프는 같은
# 가중치로 한 번 더 보는 것이다.

# %% [markdown] lang="en"
# ## The equation {#equation}
#
# The tokens are embedded once, as $x_0$. The state starts at nothing and goes round:
#
# $$h_0 = 0, \qquad h_l = \mathrm{norm}\big(\mathrm{block}(h_{l-1} + x_0 + \mathrm{signal}(l))\big)$$
#
# That is [architecture.loop][]. Adding $x_0$ at every loop is the injection ([injection.every-loop][]), so the question
# is never forgotten; the signal tells the block which loop it is in ([architecture.loop-signal][]). After any loop the
# state can be read as a guess about the next token, by the embedding's own weights ([architecture.tied-head][]).

# %% [markdown] lang="ko"
# ## 식 {#equation}
#
# 토큰은 한 번만 임베딩되어 $x_0$가 된다. 상태는 0에서 시작하여 루프를 반복한다.
#
# $$h_0 = 0, \qquad h_l = \mathrm{norm}\big(\mathrm{block}(h_{l-1} + x_0 + \mathrm{signal}(l))\big)$$
#
# 이것이 [architecture.loop][]이다. 루프마다 $x_0$를 다시 더하는 것이 주입(injection)이며([injection.every-loop][]),
# 덕분에 입력을 잊지 않는다. 루프 신호는 지금이 몇 번째 루프인지를 블록에 알린다([architecture.loop-signal][]). 어느
# 루프 뒤에든 상태를 임베딩의 가중치로 읽으면 다음 토큰에 대한 추측이 된다([architecture.tied-head][]).

# %%
import matplotlib.pyplot as plt
import torch

import looplm
from looplm.evaluate.figures import trace_figure
from looplm.tasks.addition.problems import (
    SYMBOLS,
    add,
    collate,
    parse_problem,
    problems_of,
)
from looplm.think.trace import trace_text

trained = looplm.load("adder")
adder, task, own = trained.model, trained.recipe.task, trained.recipe.halting
question = collate(
    problems_of([parse_problem("68915+62898")]), "double-reversed", "left-to-right"
)
tokens, answer = question.tokens, question.scored[0]
print("it reads     ", " ".join(SYMBOLS[token] for token in tokens[0]))
print(
    "it shall say ", " ".join(SYMBOLS[token] for token in question.targets[0, answer])
)

# %% [markdown] lang="en"
# All three numbers stand with their least-significant digit first ([addition.double-reversed][]), so 68915 is read as 5 1
# 9 8 6, and the answer 131813 is to be written 3 1 8 1 3 1.
#
# ## One loop by hand {#by-hand}
#
# [`embed`][looplm.models.looped.LoopLM.embed] gives $x_0$, and what each token may see;
# [`step`][looplm.models.looped.LoopLM.step] is one loop; [`read`][looplm.models.looped.LoopLM.logits] turns a state into
# scores of the next token. Nothing else is needed.

# %% [markdown] lang="ko"
# 세 수는 모두 낮은 자리부터 쓴다([addition.double-reversed][]). 그래서 68915는 5 1 9 8 6으로 읽고, 답 131813은 3 1 8 1 3
# 1로 쓴다.
#
# ## 직접 실행하는 한 루프 {#by-hand}
#
# [`embed`][looplm.models.looped.LoopLM.embed]는 $x_0$와 각 토큰이 볼 수 있는 것을 주고,
# [`step`][looplm.models.looped.LoopLM.step]은 루프 하나이며, [`read`][looplm.models.looped.LoopLM.logits]는 상태를 다음
# 토큰의 점수로 바꾼다. 필요한 것은 이것뿐이다.


# %%
def guess(h):
    """The most likely next token after the answer's tokens."""
    return " ".join(SYMBOLS[token] for token in adder.logits(h)[0, answer].argmax(-1))


torch.set_grad_enabled(False)
x0, view = adder.embed(tokens, real=torch.ones_like(tokens, dtype=torch.bool))
h0 = torch.zeros_like(x0)
h1 = adder.step(h0, x0, 1, view)
print("after loop 1:", guess(h1))

# %% [markdown] lang="en"
# Only the end is right already. In one loop a token has looked at the others only once, when they had not yet thought
# themselves. So give it another look.

# %% [markdown] lang="ko"
# 벌써 맞은 것은 끝 표시뿐이다. 한 루프에서 토큰은 다른 토큰을 한 번 보았을 뿐이고, 그때는 그 토큰들도 아직 계산하기
# 전이었다. 그러니 한 번 더 보게 하자.

# %%
h2 = adder.step(h1, x0, 2, view)
print("after loop 2:", guess(h2))

# %% [markdown] lang="en"
# Two applications of one block, and every token is right. The carry did not have to run through five places for that: the
# answer so far is part of what is read, and so each digit needs only the carry of the place before it.
#
# ## The same weights, again {#same-weights}
#
# Six loops by hand are what the model itself does, to the last bit; and six loops have exactly as many weights as one
# ([architecture.shared-block][]). An ordinary Transformer of the same depth would have to own the block six times.

# %% [markdown] lang="ko"
# 블록 하나를 두 번 적용했더니 모든 토큰이 맞았다. 받아올림이 두 루프 만에 다섯 자리를 전파된 것은 아니다. 지금까지 쓴
# 답도 함께 읽으므로, 각 숫자는 바로 아랫자리에서 오는 받아올림만 알면 된다.
#
# ## 같은 가중치를 다시 {#same-weights}
#
# 직접 실행한 여섯 루프는 모델의 계산과 비트까지 같다. 그리고 여섯 루프의 가중치 수는 한 루프의 가중치 수와
# 같다([architecture.shared-block][]). 깊이가 같은 보통의 트랜스포머라면 블록이 여섯 개 있어야 한다.

# %%
states = [h0]
for l in range(1, 41):
    states.append(adder.step(states[-1], x0, l, view))
by_hand = torch.stack([adder.logits(h) for h in states[1:7]])
assert torch.equal(by_hand, adder(tokens, num_loops=6))

block = sum(weight.numel() for weight in adder.block.parameters())
rest = sum(weight.numel() for weight in adder.parameters()) - block
print("loops   looped   unshared")
for loops in (1, 2, 6):
    print(f"{loops:5} {rest + block:8,} {rest + loops * block:10,}")

# %% [markdown] lang="en"
# ## What it thinks after each loop {#guesses}
#
# [`trace_text`][looplm.think.trace.trace_text] keeps every guess. A column is a token, a row a loop; right of the dotted
# line each token predicts the answer, and stops from its second loop on as soon as it is 90 % sure
# ([halting.confidence][]); the prompt stops after two loops.

# %% [markdown] lang="ko"
# ## 루프마다의 추측 {#guesses}
#
# [`trace_text`][looplm.think.trace.trace_text]은 모든 추측을 기록한다. 열은 토큰이고 행은 루프이다. 점선 오른쪽의
# 토큰은 저마다 답을 예측하며, 둘째 루프부터는 확신도가 90 %에 이르면 멈춘다([halting.confidence][]). 프롬프트는 두
# 루프 뒤에 멈춘다.

# %%
trace = trace_text(adder, task, "68915+62898", own)
assert trace.answer == "131813"
assert all(
    2 <= token.loops_taken <= 3 for token in trace.tokens if token.role == "answer"
)
trace_figure(trace.as_json())

# %% [markdown] lang="en"
# ## How far the state moves {#movement}
#
# If a loop is one more look, later looks should change less. The plot shows how far each loop moves the state of every
# token that predicts the answer.

# %% [markdown] lang="ko"
# ## 상태의 변화량 {#movement}
#
# 루프가 한 번 더 보는 것이라면, 나중의 루프일수록 변화가 적어야 한다. 그림은 답을 예측하는 토큰마다 각 루프가 상태를
# 얼마나 바꾸는지를 보여 준다.

# %%
path = torch.stack(states)[:, 0, answer]  # [loops + 1, answer tokens, D]
moved = (path[1:] - path[:-1]).norm(dim=-1)
fig, axes = plt.subplots(figsize=(6, 3), layout="constrained")
axes.plot(
    range(1, 13), moved[:12], color="#3f7fd9", alpha=0.6, marker="o", markersize=3
)
axes.set(
    xlabel="loop 루프",
    ylabel="distance moved 움직인 거리",
    xticks=range(1, 13),
    ylim=(0, None),
)
axes.grid(alpha=0.4)
axes.spines[["top", "right"]].set_visible(False)

# %% [markdown] lang="en"
# ## What surprised us {#surprise}
#
# Once the answer is found, after loop 2, the movement falls fast, but it does not fall to nothing: long after, every loop
# still shifts the state a little. This model was trained with at most six loops. What happens when nobody stops it? We
# let it run for forty.

# %% [markdown] lang="ko"
# ## 뜻밖이었던 점 {#surprise}
#
# 답을 찾은 루프 2 뒤로 변화량은 빠르게 줄지만 사라지지는 않는다. 한참 뒤에도 루프는 상태를 조금씩 바꾼다. 이 모델은
# 많아야 여섯 루프로 훈련했다. 멈추지 않으면 어떻게 되는가? 마흔 루프를 돌려 본다.

# %%
right = question.targets[0, answer]
for l in (1, 2, 3, 6, 12, 40):
    sure = adder.logits(states[l])[0, answer].softmax(-1).gather(-1, right[:, None])
    print(
        f"after loop {l:2}: {guess(states[l])}    least sure of the right token: {sure.min():.4f}"
    )
assert torch.equal(adder.logits(states[6])[0, answer].argmax(-1), right)
assert not torch.equal(adder.logits(states[40])[0, answer].argmax(-1), right)

# %% [markdown] lang="en"
# It thinks its way to the answer, and past it. Nothing in its training ever asked the state to stay where it was, so
# perhaps the small steps add up; forty loops lose what two had found. Others have seen looped models overthink (Bansal et
# al. 2022, arXiv:2202.05826); how to train one that can rest is a question for a later chapter. Here the halting rule
# keeps it safe: sure after its second loop, the token stops ([halting.confidence][]), its state frozen
# ([halting.freeze][]).
#
# ## Exercises {#exercises}
#
# Each exercise has a test. Write your own solution in place of ours, and run the cell: no error means solved.
#
# **1.** Leave out the injection after loop 1: give `step` a zero in place of $x_0$ from loop 2 on, for six loops. Is the
# question forgotten? (The next chapter is about this.)

# %% [markdown] lang="ko"
# 모델은 답에 이르지만, 계속 돌리면 답을 지나쳐 버린다. 훈련의 어느 것도 상태가 그 자리에 머물도록 요구하지 않았으므로,
# 아마 작은 변화가 쌓였을 것이다. 두 루프가 찾은 것을 마흔 루프가 잃는다. 루프 모델이 지나치게 오래
# 생각하는(overthinking) 현상은 다른 연구에서도 보고되었다(Bansal 외 2022, arXiv:2202.05826). 상태가 한곳에 머무는
# 모델을 훈련하는 방법은 뒤의 장에서 다룬다. 여기서는 정지 규칙이 이를 막아 준다. 둘째 루프 뒤에 확신이 서면 토큰은
# 멈추고([halting.confidence][]), 상태는 동결된다([halting.freeze][]).
#
# ## 연습 문제 {#exercises}
#
# 연습 문제마다 테스트가 있다. 우리 풀이 자리에 자기 풀이를 쓰고 셀을 실행해 보자. 오류가 없으면 푼 것이다.
#
# **1.** 루프 1 뒤의 주입을 빼 보자. 여섯 루프를 돌되 루프 2부터는 `step`에 $x_0$ 대신 0을 넘긴다. 입력을 잊는가? (다음
# 장에서 이것을 다룬다.)


# %%
def check_without_x0(h, forgotten):
    """Six loops with x0 in the first alone, and whether a token of the answer is wrong."""
    expected = adder.step(h0, x0, 1, view)
    for l in range(2, 7):
        expected = adder.step(expected, torch.zeros_like(x0), l, view)
    assert torch.equal(h, expected), "another state"
    wrong = not torch.equal(adder.logits(h)[0, answer].argmax(-1), right)
    assert forgotten == wrong


# %% tags=["solution"]
h = h0
for l in range(1, 7):
    h = adder.step(h, x0 if l == 1 else torch.zeros_like(x0), l, view)
check_without_x0(h, forgotten=False)

# %% [markdown] lang="en"
# **2.** Give every loop the signal of one and the same loop, from loop 1 to loop 6. With one of these signals six loops
# still find the answer, with the others they do not. Which one is it?

# %% [markdown] lang="ko"
# **2.** 모든 루프에 루프 1부터 6까지 가운데 한 루프의 신호만 주어 보자. 그중 하나를 주면 여섯 루프 뒤에도 답이 맞고,
# 다른 것을 주면 틀린다. 어느 루프의 신호인가?


# %%
def check_signal(always):
    """With this signal in every loop, the answer after six loops is right."""
    h = h0
    for _ in range(6):
        h = adder.step(h, x0, always, view)
    found = torch.equal(adder.logits(h)[0, answer].argmax(-1), right)
    assert found, f"with the signal of loop {always} it says {guess(h)}"


# %% tags=["solution"]
check_signal(1)

# %% [markdown] lang="en"
# **3.** Find a sum with a carry in which every token of the answer is done after two loops, and one in which some token
# takes three. (The second kind is rare: draw long sums, a few thousand of them.)

# %% [markdown] lang="ko"
# **3.** 받아올림이 있는데도 답의 모든 토큰이 두 루프로 끝나는 덧셈과, 어떤 토큰이 세 루프를 쓰는 덧셈을 찾아보자. (뒤의
# 것은 드물다. 긴 덧셈을 몇천 개 뽑아 보자.)


# %%
def check_loops(two, three):
    """Loops of the answer's tokens, as the adder's own rule gives them."""
    for problem, most in ((two, 2), (three, 3)):
        tokens = trace_text(adder, task, problem, own).tokens
        taken = [token.loops_taken for token in tokens if token.role == "answer"]
        assert max(taken) == most, f"{problem} takes {taken}"
    assert add(problems_of([parse_problem(two)])).carries[0] > 0, f"{two} has no carry"


# %% tags=["solution"]
check_loops(two="99+1", three="705538788019+170685840287")

"""How it is trained: the sixth chapter. Read it on the site, or run it: python examples/06_training.py."""

# %% [markdown] lang="en"
# # How it is trained {#training-chapter}
#
# **What you will see.** One training step taken apart: what is drawn, how many loops it runs, which of them are scored,
# what moves the weights. Then a short run, live: a few seconds in which a model learns the easy half of addition, and the
# folder that it leaves behind. And what the adder that answers all at once was put through, so that it can rest.

# %% [markdown] lang="ko"
# # 훈련하는 법 {#training-chapter}
#
# **무엇을 보게 되는가.** 훈련의 한 스텝(step)을 뜯어본다. 무엇을 뽑고, 몇 루프를 돌고, 그 가운데 무엇을 채점하고,
# 무엇이 가중치를 바꾸는가. 다음에는 짧은 훈련을 직접 실행한다. 몇 초 동안 모델이 덧셈의 쉬운 절반을 배우고 폴더 하나를
# 남긴다. 끝으로, 한꺼번에 답하는 모델의 상태가 한곳에 머물도록 어떻게 훈련했는지 본다.

# %% [markdown] lang="en"
# ## The idea {#idea}
#
# A looped model is asked to be right after two loops, and after six, with the same weights. So it is trained at all these
# depths: each batch runs a drawn number of loops. Nobody tells it what the state should be on the way. It is told what
# the answer is, and the loop is left to find a path on which it gets there early and stays.

# %% [markdown] lang="ko"
# ## 아이디어 {#idea}
#
# 루프 모델은 같은 가중치로 두 루프 뒤에도, 여섯 루프 뒤에도 맞아야 한다. 그래서 그 모든 깊이에서 훈련한다. 배치마다
# 루프 수를 새로 뽑는 것이다. 도중의 상태가 어떠해야 하는지는 지정하지 않는다. 답만 주고, 답에 일찍 이르러 머무는 방법은
# 루프가 스스로 찾게 한다.

# %% [markdown] lang="en"
# ## The equation {#equation}
#
# With $L$ loops drawn for the batch ([training.loop-count][]), $A$ its answer tokens and $p_l$ the prediction after loop
# $l$:
#
# $$\mathcal{L} = \frac{1}{|S|\,|A|} \sum_{l \in S} \sum_{t \in A} -\log p_l(y_t), \qquad S = \{\, l : 2l > L \,\}$$
#
# The loss counts answers only ([training.answer-loss][]), and only the second half of the loops
# ([training.second-half][]): scoring loop 1 would punish it for not knowing what it cannot know yet, scoring the last
# alone would leave the others useless for early halting. One step, by hand:

# %% [markdown] lang="ko"
# ## 식 {#equation}
#
# 배치에 뽑힌 루프 수를 $L$이라 하고([training.loop-count][]), 답 토큰을 $A$, 루프 $l$ 뒤의 예측을 $p_l$이라 하자.
#
# $$\mathcal{L} = \frac{1}{|S|\,|A|} \sum_{l \in S} \sum_{t \in A} -\log p_l(y_t), \qquad S = \{\, l : 2l > L \,\}$$
#
# 손실(loss)은 답만 세고([training.answer-loss][]), 루프도 뒤의 절반만 센다([training.second-half][]). 루프 1까지
# 채점하면 아직 알 수 없는 것을 모른다고 벌하게 되고, 마지막만 채점하면 나머지 루프는 일찍 멈추는 데 쓸모가 없어진다. 한
# 스텝을 직접 해 보자.

# %%
import json
import math
import tempfile
from collections import Counter
from pathlib import Path
from textwrap import fill

import matplotlib.pyplot as plt
import torch

import looplm
from looplm.draws import Draw
from looplm.errors import InputError
from looplm.models import build_model
from looplm.runs.checkpoint import read_card
from looplm.runs.run import Keeping, run_recipe
from looplm.tasks.addition.problems import EOS
from looplm.train.loops import LoopPlan, draw_plan, first_scored_loop, starting_state
from looplm.train.objective import make_objective
from looplm.train.optimizer import make_optimizer
from looplm.train.recipe import load_recipe
from looplm.train.trainer import Trainer, run_steps

torch.set_num_threads(1)  # one thread, so that sums are added in one order
torch.manual_seed(0)
recipe = load_recipe("first-light")
task, config = recipe.task, recipe.training
question = task.batch(range(config.batch_size), Draw(0, "problems", step=0))
model = build_model(recipe.model)
plan = draw_plan(config, Draw(0, "loops", step=0))
objective = make_objective(question, plan, config, model.reach)


def loss_of(states, objective, head=model.logits):
    """The mean over all scored loops and answer tokens."""
    losses = [
        objective.loss(l, h, slice(None), head)  # the head reads scored tokens only
        for l, h in enumerate(states)
    ]
    return torch.stack(losses).sum()


states = list(model.states(question.tokens, plan.num_loops))  # each [B, T, D]
loss = loss_of(states[plan.first_scored - 1 :], objective)
loss.backward()
rows = zip(question.targets, question.scored, strict=True)
texts = [row[scored].tolist() for row, scored in rows]
print("answers, lowest digit first:", *map(task.vocabulary.text, texts[:4]), "…")
print(f"{plan.num_loops} loops, scored from loop {plan.first_scored} on")
print(f"loss {loss.item():.3f} nats a token; blind guessing: {math.log(15):.3f}")
assert [first_scored_loop(loops) for loops in (1, 2, 5, 6)] == [1, 2, 3, 4]

# %% [markdown] lang="en"
# ## What moves the weights {#optimizer}
#
# AdamW, with weight decay on the embedding and the matrices only: not on norms, and not on the table of places, whose
# entries act as logits ([training.weight-decay][]). The learning rate warms up and falls on a cosine
# ([training.cosine][]).

# %% [markdown] lang="ko"
# ## 무엇이 가중치를 바꾸는가 {#optimizer}
#
# AdamW를 쓰되, 가중치 감쇠(weight decay)는 임베딩과 행렬에만 적용한다. 정규화와, 로짓처럼 쓰이는 자릿수 위치의 표에는
# 적용하지 않는다([training.weight-decay][]). 학습률은 웜업 뒤 코사인을 따라 내려간다([training.cosine][]).

# %%
decayed, kept = make_optimizer(model, config).param_groups
for name, group in (("decayed", decayed), ("not decayed", kept)):
    print(f"{name:12} {sum(weight.numel() for weight in group['params']):6,} weights")
fig, axes = plt.subplots(figsize=(6, 2.6), layout="constrained")
steps = range(0, config.steps, 10)
rates = [config.schedule(step, config.steps) for step in steps]
axes.plot(steps, rates, color="#3f7fd9")
axes.set(xlabel="step 스텝", ylabel="learning rate 학습률", ylim=(0, None))
axes.grid(alpha=0.4)
axes.spines[["top", "right"]].set_visible(False)

# %% [markdown] lang="en"
# ## A short run, live {#live}
#
# [`run_recipe`][looplm.runs.run.run_recipe] is what `looplm train` calls. Three hundred steps of 32 sums, at 2 or
# 3 loops, are far too few to learn to add, which is why they are worth watching. The dashed line is the loss of somebody
# who knows where each answer ends and nothing about its digits.

# %% [markdown] lang="ko"
# ## 직접 실행하는 짧은 훈련 {#live}
#
# `looplm train`이 부르는 것이 [`run_recipe`][looplm.runs.run.run_recipe]이다. 32문제씩, 2-3루프로 300스텝은
# 덧셈을 배우기에 턱없이 모자란다. 그래서 들여다볼 만하다. 점선은 답이 어디에서 끝나는지는 알지만 숫자는 하나도 모를
# 때의 손실이다.

# %%
changes = {
    "training": {
        "steps": 300,
        "batch_size": 32,
        "max_loops": 3,
        "schedule": {"rule": "cosine", "warmup_steps": 40, "peak": 5e-3},
    },
    "evaluation": {"sizes": (2, 4), "problems_per_cell": 100},
}
short = load_recipe("first-light", changes)
folder = Path(tempfile.mkdtemp()) / "run"
losses = []
keeping = Keeping(on_step=lambda step: losses.append(step.loss))
run_recipe(short, 0, folder, torch.device("cpu"), keeping=keeping)
digits = (question.targets[question.scored] != EOS).double().mean().item()
end_only = digits * math.log(10)
fig, axes = plt.subplots(figsize=(6, 2.8), layout="constrained")
axes.plot(range(1, 301), losses, color="#3f7fd9", linewidth=1)
axes.axhline(end_only, color="#d98a3f", linestyle="--")
axes.set(xlabel="step 스텝", ylabel="loss 손실", ylim=(0, None))
axes.grid(alpha=0.4)
axes.spines[["top", "right"]].set_visible(False)
last = sum(losses[-20:]) / 20
print(f"loss of the first step {losses[0]:.2f}, of the last twenty {last:.2f}")
print(f"the dashed line: {end_only:.2f}")

trained = looplm.load(folder)
fresh = task.batch(range(500), Draw(0, "chapter 6"))
ends = (fresh.targets == EOS)[fresh.scored]
share = {}
for loops in (2, 3, 6):
    with torch.no_grad():
        guess = trained(fresh.tokens, num_loops=loops)[-1].argmax(-1)
    right = (guess == fresh.targets)[fresh.scored].double()
    share[loops] = right[ends].mean().item(), right[~ends].mean().item()
    print(
        "{} loops: end marks right {:.0%}, digits {:.0%}".format(loops, *share[loops])
    )
assert last < end_only < losses[0]
assert share[3][0] > 0.9 > 0.5 > share[3][1]
assert share[6][0] < share[3][0]

# %% [markdown] lang="en"
# Where the answer ends is learned first. That is counting, and digit places have done the counting; the digits themselves
# come slowly. And at six loops, which this run never practised, it has even lost the ends: a depth must be trained to be
# used. The whole run that made the shipped adder took ten times the steps, with three times as many sums in each, and up
# to six loops:

# %% [markdown] lang="ko"
# 답이 어디에서 끝나는지를 먼저 배운다. 그것은 세는 일이고, 세는 일은 자릿수 위치가 이미 해 두었다. 숫자는 천천히
# 배운다. 그리고 이 훈련에 없던 여섯 루프에서는 끝마저 놓친다. 깊이도 훈련해야 쓸 수 있다. 패키지에 든 덧셈 모델은
# 스텝이 열 배, 스텝마다의 문제가 세 배이고 여섯 루프까지 도는 훈련에서 나왔다.

# %%
card = read_card("adder")["provenance"]
facts = card["training"]
print(f"{facts['steps']} steps, {facts['tokens']:,} tokens, {facts['elapsed_s']} s")
print(
    f"on {card['device']}; final loss {facts['final_loss']} ({facts['final_loss_is']})"
)

# %% [markdown] lang="en"
# ## What a run leaves {#run}
#
# A folder that explains itself. It is claimed when the run starts and has a mark when all is done; a run that was stopped
# in between, by whatever, goes on where its newest checkpoint stands, to the same bits ([training.resume][]). The first
# line of its log says under which rules it ran, each with the hash of its wording ([training.log][]), so that years later
# `looplm spec stale` can tell which have changed.

# %% [markdown] lang="ko"
# ## 훈련이 남기는 것 {#run}
#
# 모든 것을 기록한 폴더가 남는다. 실행은 시작할 때 폴더를 차지하고 다 끝나면 표시를 남긴다. 도중에 무엇 때문에
# 멈추었든, 가장 새로운 체크포인트에서 이어 가 비트까지 같은 결과에 이른다([training.resume][]). 기록의 첫 줄은 어떤
# 규칙에 따라 실행했는지를, 규칙마다 그 글의 해시와 함께 적는다([training.log][]). 그래서 몇 해가 지난 뒤에도 어느
# 규칙이 바뀌었는지를 `looplm spec stale`이 알려 줄 수 있다.

# %%
print(fill(" ".join(sorted(path.name for path in folder.iterdir()))))
header, first_step, *_ = (folder / "log.jsonl").read_text().splitlines()
header = json.loads(header)
print("header:", *header)
print("rules: ", *header["clauses"][-2:])
print("a step:", *json.loads(first_step))
cells = json.loads((folder / "summary.json").read_text())["results"][0]["cells"]
for cell in cells[:2]:
    print(
        f"{cell['set']} sums of {cell['size']} digits: {cell['correct']} of {cell['n']}"
    )

# %% [markdown] lang="en"
# The checkpoint carries the SHA-256 of each file, in a manifest that is written last ([training.checkpoint][]). Turn over
# a single bit of the weights, and they do not load.

# %% [markdown] lang="ko"
# 체크포인트(checkpoint)에는 파일마다 SHA-256이 있고, 그 목록은 맨 나중에 쓴다([training.checkpoint][]). 가중치의 비트
# 하나만 뒤집어도 불러오지 못한다.

# %%
weights = folder / "checkpoint" / "model.safetensors"
damaged = bytearray(weights.read_bytes())
damaged[-1] ^= 1
weights.write_bytes(damaged)
try:
    looplm.load(folder)
except InputError as error:
    print(fill(str(error).replace(str(folder), "run")))
else:
    raise AssertionError("a flipped bit went unnoticed")

# %% [markdown] lang="en"
# ## The same bits {#same-bits}
#
# Weights, problems and loop counts all follow from the seed ([training.deterministic][]). So the same seed gives the same
# weights, bit for bit, on one machine with the same number of threads; another seed gives another model.

# %% [markdown] lang="ko"
# ## 같은 비트 {#same-bits}
#
# 가중치도 문제도 루프 수도 모두 시드(seed)를 따른다([training.deterministic][]). 같은 기계에서 스레드 수가 같으면, 같은
# 시드는 비트 하나까지 같은 가중치를 준다. 시드가 다르면 다른 모델이 된다.


# %%
def after_ten_steps(seed):
    """The embedding of a model that was trained for ten steps."""
    few = {"training": {"steps": 10, "batch_size": 16}}
    trainer = Trainer(load_recipe("first-light", few), seed)
    for _ in run_steps(trainer):
        pass
    return trainer.model.embedding.weight.detach()


assert torch.equal(after_ten_steps(seed=3), after_ten_steps(seed=3))
assert not torch.equal(after_ten_steps(seed=3), after_ten_steps(seed=4))

# %% [markdown] lang="en"
# ## Learning to rest {#rest}
#
# Chapter 1 let its adder run for forty loops and saw it lose the answer; the adder of chapter 4 keeps it. Two things
# were added to its training for that. A share of the batches does not start from 0 but from a state that the loop
# itself has made: mostly from *another* problem's, so that it learns to find its way from anywhere, else from its own,
# so that it learns to stay ([training.restarts][]). And noise is added to the state after each loop
# ([training.state-noise][]). [The study of x0](../docs/studies.md#x0) shows what restarts do by themselves: at four
# times the trained loops, the models of both recipes that had them solve nearly every sum; of those that had not, the
# ones that write digit after digit solve nearly none. With restarts, those that write digit after digit miss some sums
# that they solve without; whether restarts cost that, or training that needed more steps, is open. Here is what 10,000
# batches of that preset would do.

# %% [markdown] lang="ko"
# ## 상태를 머물게 하는 훈련 {#rest}
#
# 1장의 덧셈 모델은 마흔 루프를 돌리자 답을 잃었고, 4장의 모델은 유지한다. 그러도록 훈련에 두 가지를 더했다. 배치의
# 일부는 0이 아니라 루프가 만든 상태에서 시작한다. 대개는 *다른* 문제의 상태에서 시작하여 어디서든 답을 찾는 법을
# 배우고, 나머지는 자기 상태에서 시작하여 머무는 법을 배운다. 이것이 재출발(restart)이다([training.restarts][]). 그리고
# 루프가 끝날 때마다 상태에 잡음을 더한다([training.state-noise][]). 재출발만으로 무엇이 달라지는지는 [x0의
# 연구](../docs/studies.ko.md#x0)에 있다. 훈련한 루프의 네 배를 돌렸을 때, 재출발로 훈련한 모델은 어느 레시피든 거의
# 모든 문제를 풀고, 그렇지 않은 모델 가운데 한 자리씩 쓰는 것은 거의 하나도 풀지 못한다. 한 자리씩 쓰는 모델은 재출발로
# 훈련하면 없이도 풀던 문제를 일부 놓치는데, 그것이 재출발의 비용인지 스텝이 더 필요했던 것인지는 알 수 없다. 그
# 프리셋의 배치 10,000개를 뽑아 보자.

# %%
parallel = load_recipe("parallel")
plans = [draw_plan(parallel.training, Draw(0, "loops", n)) for n in range(10_000)]
kinds = Counter(
    "0"
    if plan.before == 0
    else "another problem's state"
    if plan.stale
    else "its own state"
    for plan in plans
)
for kind, count in kinds.most_common():
    print(f"start from {kind:24} {count / len(plans):.0%} of the batches")

adder = looplm.load("parallel-adder").model
batch = parallel.task.batch(range(64), Draw(0, "chapter 6"))
stale = next(plan for plan in plans if plan.stale)
draw = Draw(0, "restart")
start = starting_state(adder, batch.tokens, stale, parallel.training, draw)
size = start.h[batch.scored].square().mean().sqrt()
print(
    f"made in {start.loops} loops; a component of the state is {size:.2f} in size,",
    end=" ",
)
print(f"the noise {parallel.training.state_noise}")

# %% [markdown] lang="en"
# Almost half the size of what it disturbs: that is a lot of noise. It is meant to blur what need not be told apart,
# such as how many places a carry has already come, and to leave what is needed: whether there is one. What it does
# beside restarts is not measured yet.
#
# ## What surprised us {#surprise}
#
# That the loss says so little about what will fail. Nothing in four digits needs a carry to look the same after one place
# and after four, so a model may have a low loss and still break on long chains. The adder that can rest is the one with
# the *higher* training loss, hundreds of times that of the other: it was measured from stale states too, and with the
# noise on.

# %% [markdown] lang="ko"
# 잡음의 크기가 상태의 절반에 가까우니 상당히 큰 잡음이다. 받아올림이 벌써 몇 자리를 왔는지처럼 구별할 필요가 없는 것은
# 흐리고, 필요한 것, 곧 받아올림이 있는지만 남기려는 뜻이다. 재출발과 함께 쓸 때 실제로 무엇을 하는지는 아직 측정하지
# 않았다.
#
# ## 뜻밖이었던 점 {#surprise}
#
# 손실을 보아서는 무엇이 실패할지 거의 알 수 없다는 점이다. 네 자리 훈련에는 한 자리를 지난 받아올림과 네 자리를 지난
# 받아올림이 같은 모습이어야 할 이유가 없으므로, 훈련 손실이 낮아도 긴 사슬에서는 무너질 수 있다. 상태가 한곳에 머무는
# 모델은 오히려 훈련 손실이 *높은* 쪽으로, 다른 모델의 수백 배이다. 다른 문제의 상태에서도 시작하고 잡음도 더한 채로
# 측정한 손실이다.

# %%
losses = {
    name: read_card(name)["provenance"]["training"]["final_loss"]
    for name in ("adder", "parallel-adder")
}
print(losses)
assert losses["parallel-adder"] > 200 * losses["adder"]

# %% [markdown] lang="en"
# ## Exercises {#exercises}
#
# Each exercise has a test. Write your own solution in place of ours, and run the cell: no error means solved.
#
# **1.** At which step, counted from 0, is the learning rate of `first-light` highest? It is not 100, although that is the
# preset's `warmup_steps`.

# %% [markdown] lang="ko"
# ## 연습 문제 {#exercises}
#
# 연습 문제마다 테스트가 있다. 우리 풀이 자리에 자기 풀이를 쓰고 셀을 실행해 보자. 오류가 없으면 푼 것이다.
#
# **1.** `first-light`의 학습률은 0부터 센 몇 번째 스텝에서 가장 높은가? 프리셋의 `warmup_steps`는 100이지만 100은
# 아니다.


# %%
def check_highest(step):
    """No other step has a higher rate."""
    rates = [config.schedule(other, config.steps) for other in range(3000)]
    assert rates[step] == max(rates), f"step {step} has {rates[step]:.6f}"


# %% tags=["solution"]
check_highest(
    99
)  # the warm-up is complete at its 100th step, and then the cosine falls

# %% [markdown] lang="en"
# **2.** The dashed line above belongs to a model that knows where answers end. Build its logits, and let the package's
# own loss confirm the line: `logits[l, b, t, v]`, for any number of loops.

# %% [markdown] lang="ko"
# **2.** 위의 점선은 답이 어디에서 끝나는지 아는 모델의 것이다. 그 모델의 로짓(logit)을 만들어, 패키지의 손실로 점선을
# 확인해 보자. 루프 수에 상관없이 `logits[l, b, t, v]`를 채우면 된다.


# %%
def check_end_only(logits):
    """The loss of knowing the end marks and nothing else."""
    once = make_objective(question, LoopPlan(len(logits), 1), config, model.reach)
    loss = loss_of(logits, once, head=lambda scores: scores).item()
    assert abs(loss - end_only) < 1e-3, f"{loss:.4f}, not {end_only:.4f}"


# %% tags=["solution"]
is_end = question.targets == EOS
knowing = torch.full((1, *question.targets.shape, 15), -100.0)
knowing[0, ~is_end, :10] = 0.0  # any digit
knowing[0, is_end, EOS] = 0.0
check_end_only(knowing)

# %% [markdown] lang="en"
# Training is [`looplm.train`][looplm.train.trainer], runs are [`looplm.runs.run`][looplm.runs.run], their
# clauses [the spec's page](../spec/training.md).

# %% [markdown] lang="ko"
# 훈련은 [`looplm.train`][looplm.train.trainer]에, 실행은 [`looplm.runs.run`][looplm.runs.run]에, 조항은
# [명세](../spec/training.ko.md)에 있다.

// What the live page says, in the language of the page.
"use strict";

(() => {
  const en = {
    sum: "A sum",
    think: "Think",
    tryOne: "Or try",
    model: "The adder answers",
    "parallel-adder": "all at once",
    adder: "digit by digit",
    rule: "A token stops",
    own: { "parallel-adder": "when its prefix is stable", adder: "when it is sure, from loop 2 on" },
    confidence: "when it is sure enough",
    threshold: "Threshold: how sure is sure enough",
    invalid: (most) => `Give two numbers and a plus, such as 978+457, with at most ${most} digits in all.`,
    right: "right",
    wrong: (sum) => `wrong: it is ${sum}`,
    result: ({ a, b, answer, verdict, mean, most, work }) =>
      `${a} + ${b} = ${answer}, ${verdict}. A token of the answer took ${mean} loops on average and ${most} at most; ` +
      `the whole text took ${work} block evaluations.`,
    figure: "What each token guessed after each loop; columns are tokens, rows are loops. The table below says the same.",
    loop: "loop",
    prompt: "prompt",
    answer: "answer",
    cell: ({ token, loop, guess, confidence }) => `${token}, loop ${loop}: ${guess}, ${confidence}`,
    goesOn: (count, most) => `Not shown: ${count} tokens of the prompt think on, at most to loop ${most}; nothing waits for them.`,
    legend: "probability of the guess",
    table: "The same as a table",
    head: ["token", "part", "loops", "guess after each loop, and its probability"],
    measured: (count, digits) => `${count} sums of ${digits} digits, full of carries, none of them trained on`,
    measuredHead: ["adder", "a token stops", "right", "loops an answer token", "block evaluations a sum"],
    of: (right, done, count) => (done < count ? `${right} of ${done} …` : `${right} of ${count}`),
    done: (right, count, loops) => `${right} of ${count} right, with ${loops} loops a token of the answer.`,
    atLeast: (threshold) => `probability ≥ ${threshold}`,
    told: {
      "prefix-stability": (threshold) => `prefix stable, ≥ ${threshold}`,
      confidence: (threshold) => `probability ≥ ${threshold}, from loop 2 on`,
    },
  };

  const ko = {
    sum: "덧셈",
    think: "풀기",
    tryOne: "예시",
    model: "답하는 방법",
    "parallel-adder": "한꺼번에",
    adder: "한 자리씩",
    rule: "토큰이 멈추는 때",
    own: { "parallel-adder": "앞부분이 안정되면", adder: "둘째 루프부터 확신하면" },
    confidence: "충분히 확신하면",
    threshold: "임계값: 얼마면 충분한가",
    invalid: (most) => `978+457처럼 두 수와 더하기 기호를 입력한다. 숫자는 모두 합쳐 ${most}개까지이다.`,
    right: "맞았다",
    wrong: (sum) => `틀렸다. 바른 답은 ${sum}이다`,
    result: ({ a, b, answer, verdict, mean, most, work }) =>
      `${a} + ${b} = ${answer}: ${verdict}. 답의 토큰은 평균 ${mean}루프, 최대 ${most}루프를 썼고, ` +
      `글 전체에는 블록 계산이 ${work}번 들었다.`,
    figure: "루프마다 토큰이 한 추측. 열은 토큰, 행은 루프이다. 아래 표에 같은 내용이 있다.",
    loop: "루프",
    prompt: "프롬프트",
    answer: "답",
    cell: ({ token, loop, guess, confidence }) => `${token}, 루프 ${loop}: ${guess}, ${confidence}`,
    goesOn: (count, most) => `그림 밖: 프롬프트의 토큰 ${count}개는 최대 루프 ${most}까지 더 돌지만, 이를 기다리는 토큰은 없다.`,
    legend: "추측의 확률",
    table: "같은 내용을 표로",
    head: ["토큰", "부분", "루프", "루프마다의 추측과 그 확률"],
    measured: (count, digits) => `받아올림이 많은 ${digits}자리 덧셈 ${count}개, 모두 훈련에 없던 문제`,
    measuredHead: ["덧셈 모델", "토큰이 멈추는 때", "맞음", "답의 토큰마다 쓴 루프", "덧셈마다 든 블록 계산"],
    of: (right, done, count) => (done < count ? `${done}개 가운데 ${right}개 …` : `${count}개 가운데 ${right}개`),
    done: (right, count, loops) => `${count}개 가운데 ${right}개를 맞혔고, 답의 토큰마다 ${loops}루프를 썼다.`,
    atLeast: (threshold) => `확률 ≥ ${threshold}`,
    told: {
      "prefix-stability": (threshold) => `앞부분 안정, ≥ ${threshold}`,
      confidence: (threshold) => `확률 ≥ ${threshold}, 둘째 루프부터`,
    },
  };

  looplmLive.words = { en, ko };
})();

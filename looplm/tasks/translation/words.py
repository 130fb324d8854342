"""The words of the grammar, English beside Korean. Kinds: p person, a animal, t thing, f food, w something written, l place."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Verb:
    """A verb that takes an object."""

    base: str
    past: str
    stem: str
    """Korean, without 다."""
    infinitive: str
    """The form in 아 or 어, contracted."""
    kinds: str
    """Of objects that it takes."""


@dataclass(frozen=True)
class Noun:
    """A noun that is counted."""

    english: str
    korean: str
    kind: str


@dataclass(frozen=True)
class Pronoun:
    """One of six."""

    subject: str
    object: str
    plain: str
    polite: str
    """The word in polite and formal speech."""
    third: bool = False
    """Whether its verb takes -s."""


_VERBS = """
love loved 사랑하 사랑해 patfwl / like liked 좋아하 좋아해 patfwl / hate hated 미워하 미워해 patfwl
see saw 보 봐 patfwl / know knew 알 알아 patfwl / find found 찾 찾아 patfwl / remember remembered 기억하 기억해 patfwl
forget forgot 잊 잊어 patfwl / draw drew 그리 그려 patfwl / choose chose 고르 골라 patfwl / want wanted 원하 원해 patfwl
compare compared 비교하 비교해 patfwl / describe described 묘사하 묘사해 patfwl / clean cleaned 청소하 청소해 tl
wash washed 씻 씻어 patf / buy bought 사 사 atfw / sell sold 팔 팔아 atfw / make made 만들 만들어 tfw
break broke 부수 부숴 t / fix fixed 고치 고쳐 tw / carry carried 나르 날라 tfw / throw threw 던지 던져 tfw
catch caught 잡 잡아 pat / push pushed 밀 밀어 pat / pull pulled 당기 당겨 pat / lift lifted 들 들어 patf
hide hid 숨기 숨겨 patfw / open opened 열 열어 t / close closed 닫 닫아 t / hold held 쥐 쥐어 t / use used 쓰 써 t
write wrote 적 적어 w / translate translated 번역하 번역해 w / learn learned 배우 배워 w / study studied 공부하 공부해 w
understand understood 이해하 이해해 pw / believe believed 믿 믿어 pw / explain explained 설명하 설명해 atfwl
print printed 인쇄하 인쇄해 w / eat ate 먹 먹어 f / cook cooked 요리하 요리해 f / taste tasted 맛보 맛봐 f
bake baked 굽 구워 f / fry fried 튀기 튀겨 f / mix mixed 섞 섞어 f / share shared 나누 나눠 tf
order ordered 주문하 주문해 tf / help helped 돕 도와 pa / meet met 만나 만나 p / teach taught 가르치 가르쳐 p
call called 부르 불러 pa / invite invited 초대하 초대해 p / respect respected 존경하 존경해 p
trust trusted 신뢰하 신뢰해 p / praise praised 칭찬하 칭찬해 pa / hug hugged 안 안아 pa / kick kicked 차 차 at
follow followed 따르 따라 pa / chase chased 쫓 쫓아 pa / visit visited 방문하 방문해 pl / leave left 떠나 떠나 pl
protect protected 보호하 보호해 patl / watch watched 지켜보 지켜봐 pal / save saved 구하 구해 pa
raise raised 기르 길러 a / paint painted 칠하 칠해 tl / build built 짓 지어 l / move moved 옮기 옮겨 tfw
send sent 보내 보내 tfw / receive received 받 받아 tfw / hear heard 듣 들어 paw / bring brought 가져오 가져와 tfw
collect collected 모으 모아 tfw / lose lost 잃어버리 잃어버려 tw / steal stole 훔치 훔쳐 tfw
touch touched 만지 만져 patfw / count counted 세 세 patf / miss missed 그리워하 그리워해 pal
avoid avoided 피하 피해 pal / check checked 확인하 확인해 tfwl / prepare prepared 준비하 준비해 tfw
bury buried 묻 묻어 t / cover covered 덮 덮어 tfw / shake shook 흔들 흔들어 pt / burn burned 태우 태워 tw
"""
_NOUNS = {
    "p": """friend 친구 teacher 선생님 student 학생 doctor 의사 nurse 간호사 farmer 농부 singer 가수 actor 배우
    writer 작가 painter 화가 driver 운전사 soldier 군인 king 왕 queen 여왕 boy 소년 girl 소녀 brother 형제
    sister 자매 mother 어머니 father 아버지 neighbor 이웃 guest 손님 lawyer 변호사 judge 판사 player 선수
    baker 제빵사 poet 시인 dancer 무용수 pilot 조종사 sailor 선원 hunter 사냥꾼 tailor 재단사 banker 은행원""",
    "a": """dog 개 cat 고양이 bird 새 horse 말 cow 소 pig 돼지 rabbit 토끼 bear 곰 tiger 호랑이 lion 사자 monkey 원숭이
    elephant 코끼리 snake 뱀 frog 개구리 duck 오리 chicken 닭 goat 염소 turtle 거북 spider 거미 bee 벌
    squirrel 다람쥐 crow 까마귀 whale 고래 dolphin 돌고래""",
    "t": """chair 의자 table 탁자 desk 책상 lamp 등불 window 창문 door 문 clock 시계 mirror 거울 box 상자 bag 가방
    cup 컵 plate 접시 spoon 숟가락 bottle 병 basket 바구니 key 열쇠 coin 동전 ring 반지 hat 모자 umbrella 우산
    pencil 연필 ball 공 drum 북 piano 피아노 guitar 기타 camera 사진기 computer 컴퓨터 machine 기계 car 차
    bicycle 자전거 boat 배 hammer 망치 rope 밧줄 stone 돌 candle 양초 pillow 베개 blanket 담요 robot 로봇
    doll 인형 flower 꽃""",
    "f": """apple 사과 grape 포도 banana 바나나 orange 오렌지 peach 복숭아 melon 멜론 egg 달걀 cake 케이크 cookie 과자
    noodle 국수 potato 감자 tomato 토마토 carrot 당근 onion 양파 mushroom 버섯 pumpkin 호박 bean 콩
    sandwich 샌드위치 pie 파이 sausage 소시지 dumpling 만두 pancake 부침개""",
    "w": """book 책 letter 편지 poem 시 story 이야기 diary 일기 newspaper 신문 novel 소설 map 지도 report 보고서
    song 노래 message 쪽지""",
    "l": """house 집 school 학교 church 교회 garden 정원 city 도시 village 마을 bridge 다리 palace 궁전 park 공원
    library 도서관 hospital 병원 museum 박물관 market 시장 castle 성 tower 탑 farm 농장 station 역 harbor 항구""",
}
_ADJECTIVES = """big 큰 small 작은 old 오래된 new 새로운 good 좋은 bad 나쁜 pretty 예쁜 ugly 못생긴 fast 빠른 slow 느린
strong 강한 weak 약한 heavy 무거운 light 가벼운 cheap 값싼 expensive 비싼 famous 유명한 strange 이상한
quiet 조용한 loud 시끄러운 red 빨간 blue 파란 white 하얀 black 검은 yellow 노란 warm 따뜻한 cold 차가운
happy 행복한 sad 슬픈 tired 지친 lazy 게으른 honest 정직한 brave 용감한 young 젊은"""
_ADVERBS = """today 오늘 always 항상 often 자주 again 다시 sometimes 가끔 together 같이 now 지금 slowly 천천히
quickly 빨리 quietly 조용히 suddenly 갑자기 finally 마침내 certainly 확실히 perhaps 아마"""


def _pairs(text: str) -> tuple[tuple[str, str], ...]:
    words = text.split()
    return tuple(zip(words[::2], words[1::2], strict=True))


VERBS = tuple(Verb(*line.split()) for line in _VERBS.strip().replace("\n", " / ").split(" / "))
NOUNS = tuple(Noun(english, korean, kind) for kind, text in _NOUNS.items() for english, korean in _pairs(text))
ADJECTIVES = dict(_pairs(_ADJECTIVES))
ADVERBS = dict(_pairs(_ADVERBS))
PRONOUNS = (
    Pronoun("I", "me", "나", "저"),
    Pronoun("you", "you", "너", "당신"),
    Pronoun("he", "him", "그", "그", third=True),
    Pronoun("she", "her", "그녀", "그녀", third=True),
    Pronoun("we", "us", "우리", "저희"),
    Pronoun("they", "them", "그들", "그들"),
)

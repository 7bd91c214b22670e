"""One short sentence in each of many languages, and small SentencePiece models learned from them."""

from __future__ import annotations

import io
from functools import cache
from typing import Any

from sentencepiece import SentencePieceTrainer

from .corpus import strings

SENTENCES = {
    "Amharic": "ዛሬ ጠዋት ቡና ጠጣሁ፤ ከዚያም ወደ ቤት ሄድኩ።",
    "Arabic": "شَرِبتُ القَهوة هذا الصباح، ثم عدت إلى البيت.",
    "Armenian": "Այսօր առավոտյան սուրճ խմեցի, հետո տուն գնացի։",
    "Basque": "Gaur goizean kafea hartu dut; gero etxera joan naiz.",
    "Bengali": "আজ সকালে আমি কফি খেয়েছি, তারপর বাড়ি গিয়েছি।",
    "Burmese": "ဒီမနက် ကော်ဖီသောက်ပြီး အိမ်ပြန်ခဲ့တယ်။",
    "Chinese": "今天早上我喝了两杯咖啡，然后回家了。",
    "Czech": "Dnes ráno jsem vypil kávu; příšerně žluťoučký kůň běžel domů.",
    "English": "This morning I drank 2 cups of coffee, didn't I? Then I went home.",
    "Farsi": "امروز صبح قهوه نوشیدم و بعد به خانه می‌روم.",
    "Finnish": "Join tänä aamuna kahvia, ja sitten menin kotiin.",
    "French": "Ce matin j’ai bu un café crème\u202f; puis, à midi, je suis rentré.",
    "Georgian": "დღეს დილით ყავა დავლიე, მერე სახლში წავედი.",
    "German": "Heute früh trank ich süßen Kaffee – „STRASSE“ heißt Straße.",
    "Greek": "Σήμερα το πρωί ήπια καφέ· ύστερα ο Οδυσσέας πήγε σπίτι.",
    "Gujarati": "આજે સવારે મેં કોફી પીધી, પછી ઘરે ગયો.",
    "Hebrew": "הַבֹּקֶר שתיתי קפה, ואחר כך הלכתי הביתה.",
    "Hindi": "आज सुबह मैंने कॉफ़ी पी, फिर मैं घर गया।",
    "Icelandic": "Í morgun drakk ég kaffi, síðan fór ég heim til Þórðar.",
    "Indonesian": "Pagi ini saya minum kopi, lalu pulang ke rumah.",
    "Japanese": "今朝コーヒーを２杯飲んで、ｶﾀｶﾅの本を読み、家に帰りました。",
    "Kannada": "ಇಂದು ಬೆಳಿಗ್ಗೆ ಕಾಫಿ ಕುಡಿದು ಮನೆಗೆ ಹೋದೆ.",
    "Khmer": "ព្រឹកនេះខ្ញុំផឹកកាហ្វេ ហើយទៅផ្ទះ។",
    "Korean": "오늘 아침에 커피를 마시고 \u110c\u1175\u11b8에 갔어요.",
    "Lao": "ເຊົ້ານີ້ຂ້ອຍດື່ມກາເຟແລ້ວກັບບ້ານ.",
    "Malayalam": "ഇന്ന് രാവിലെ കാപ്പി കുടിച്ച് വീട്ടിൽ പോയി.",
    "Mongolian": "Өнөө өглөө би кофе уугаад гэртээ харьсан.",
    "Polish": "Dziś rano wypiłem kawę, a potem poszedłem do łóżka.",
    "Portuguese": "Hoje de manhã bebi um café; depois fui à praça São João.",
    "Russian": "Сегодня утром я выпил чёрный кофе, а потом пошёл домой.",
    "Sinhala": "අද උදේ මම කෝපි බීලා ගෙදර ගියා.",
    "Spanish": "¿Bebiste café esta mañana? ¡Sí, señor! Luego volví a casa.",
    "Swahili": "Leo asubuhi nilikunywa kahawa, kisha nikaenda nyumbani.",
    "Tamil": "இன்று காலை காபி குடித்துவிட்டு வீட்டிற்குச் சென்றேன்.",
    "Telugu": "ఈ ఉదయం కాఫీ తాగి ఇంటికి వెళ్ళాను.",
    "Thai": "เช้านี้ฉันดื่มกาแฟ แล้วทำงานน้ำใส",
    "Tibetan": "དེ་རིང་ཞོགས་པ་ཇ་བཏུངས་ནས་ནང་ལ་ཕྱིན།",
    "Turkish": "Bu sabah İstanbul'da kahve içtim, ılık bir gündü.",
    "Ukrainian": "Сьогодні вранці я випив кави, а потім пішов до їжака.",
    "Urdu": "آج صبح میں نے کافی پی، پھر گھر گیا۔",
    "Vietnamese": "Sáng nay tôi uống cà phê sữa đá rồi về nhà, e\u0302\u0301 ẩm ướt.",
    "Yoruba": "Ní òwúrọ̀ yìí mo mu kọfí, lẹ́yìn náà mo lọ sílé.",
}

SPECIAL = ("<pad>", "<unk>", "[CLS]", "[SEP]", "[MASK]")


@cache
def _texts() -> tuple[str, ...]:
    # Each sentence several times, so that whole words and not letters alone are worth a piece.
    return tuple(sentence for sentence in SENTENCES.values() for _ in range(4)) + tuple(strings(600, seed=5))


def train_model(texts: tuple[str, ...] | None = None, **settings: Any) -> bytes:
    """Return a small SentencePiece model's file, with RemBERT's special pieces; the same settings, the same model."""
    return _trained(texts, tuple(sorted((name, _frozen(value)) for name, value in settings.items())))


def _frozen(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


@cache
def _trained(texts: tuple[str, ...] | None, settings: tuple[tuple[str, Any], ...]) -> bytes:
    written = io.BytesIO()
    arguments: dict[str, Any] = {
        "model_type": "unigram",
        "vocab_size": 5000,
        "hard_vocab_limit": False,
        "character_coverage": 0.98,
        "pad_id": 0,
        "unk_id": 1,
        "bos_id": -1,
        "eos_id": -1,
        "control_symbols": list(SPECIAL[2:]),
        "normalization_rule_name": "nmt_nfkc",
        "num_threads": 1,
        "minloglevel": 2,
        **{name: list(value) if isinstance(value, tuple) else value for name, value in settings},
    }
    SentencePieceTrainer.train(
        sentence_iterator=iter(_texts() if texts is None else texts), model_writer=written, **arguments
    )
    return written.getvalue()

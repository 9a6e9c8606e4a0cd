"""Names, things and words that the questions are told with."""

from __future__ import annotations

import random
from collections.abc import Mapping
from types import MappingProxyType

NAMES = tuple(
    "Ada Ali Amir Anna Ben Bea Carla Chen Clara Dana David Elif Emma Erik Eva Fatima Felix Grace Hana Hugo Ida Ines "
    "Ivan Jack Jana Joao Jonas Kai Kofi Lara Leo Lena Liam Lucy Maria Marta Max Maya Mei Milo Nadia Nina Noah Nora "
    "Omar Oscar Paula Pedro Priya Rosa Sam Sara Sofia Tara Theo Tom Uma Vera Yara Zoe".split()
)
# One and several of a thing that is bought, held or counted.
THINGS = tuple(
    tuple(pair.split("/"))
    for pair in (
        "apple/apples pencil/pencils book/books ticket/tickets mug/mugs candle/candles notebook/notebooks ball/balls "
        "card/cards sticker/stickers coin/coins shell/shells button/buttons stamp/stamps marble/marbles bottle/bottles "
        "cookie/cookies muffin/muffins orange/oranges pear/pears lemon/lemons egg/eggs rose/roses brick/bricks "
        "toy/toys kite/kites bead/beads sandwich/sandwiches hat/hats scarf/scarves lamp/lamps chair/chairs "
        "plate/plates spoon/spoons brush/brushes magnet/magnets postcard/postcards puzzle/puzzles badge/badges "
        "peach/peaches"
    ).split()
)
CONTAINERS = tuple(
    tuple(pair.split("/"))
    for pair in "box/boxes bag/bags basket/baskets crate/crates tray/trays packet/packets jar/jars tin/tins".split()
)
COLOURS = tuple("red blue green yellow white black orange purple grey pink brown".split())
CATEGORIES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "fruits": tuple("apples pears bananas plums cherries mangoes lemons peaches grapes oranges".split()),
        "tools": tuple("hammers saws pliers drills wrenches screwdrivers chisels files".split()),
        "animals": tuple("cats dogs horses rabbits goats ducks sheep foxes owls mice".split()),
        "clothes": tuple("shirts hats scarves socks coats gloves skirts jackets".split()),
        "vehicles": tuple("cars buses bicycles trucks trams motorbikes vans tractors".split()),
        "vegetables": tuple("carrots onions potatoes leeks cabbages turnips cucumbers radishes".split()),
        "instruments": tuple("violins drums flutes trumpets pianos guitars harps clarinets".split()),
        "pieces of furniture": tuple("tables chairs sofas beds desks wardrobes stools bookcases".split()),
    }
)
# More, less, most: of the same property.
SCALES = (
    ("taller", "shorter", "tallest", "shortest"),
    ("older", "younger", "oldest", "youngest"),
    ("faster", "slower", "fastest", "slowest"),
    ("heavier", "lighter", "heaviest", "lightest"),
    ("stronger", "weaker", "strongest", "weakest"),
    ("richer", "poorer", "richest", "poorest"),
)
# By length, for spelling: no word has a letter outside a-z.
WORDS = tuple(
    """
    cat dog sun map cup hat pen bus key ice oak egg fan jar lip net owl pig rug tea van web zip arm bee cow
    lamp tree fish bird moon star rain snow wind leaf frog bear wolf ship road door book milk rice salt corn gold
    iron wood sand hill lake pond farm gate wall roof desk bell drum kite ring shoe sock coat belt nest seed
    apple bread chair cloud dance eagle field grape house juice knife lemon mouse night ocean paper queen river
    sheep table uncle voice water youth zebra beach brush candy daisy earth flute glass honey ivory jelly koala
    basket bottle bridge butter button camera candle carpet castle cheese cherry circle coffee cookie cotton
    dinner doctor dragon engine family finger flower forest garden guitar hammer island jacket jungle kitten
    ladder letter lizard marble market mirror monkey needle office orange pencil pepper pillow planet pocket
    rabbit ribbon rocket saddle school season shadow silver spider spring street summer teapot temple ticket
    tomato tunnel turtle violet wallet window winter yellow balloon banana blanket cabbage captain chicken
    compass country curtain dolphin evening feather giraffe hallway holiday journey kitchen lantern library
    morning message musician mountain necklace notebook painting parallel passenger penguin pyramid railway
    rainbow sandwich scissors shoulder squirrel teacher thunder village vitamin volcano weather whisper
    adventure alligator blueberry breakfast butterfly calendar carpenter chocolate committee crocodile
    dictionary elephant excellent favourite fireplace happiness hospital important lighthouse locomotive
    medicine millimetre motorcycle mushroom newspaper orchestra pineapple population restaurant satellite
    strawberry successful telephone television tomorrow toothbrush umbrella university vegetable waterfall
    wonderful assessment bookkeeper connection independent possession raspberry
    ant ape axe bag bat bed bow box boy bug bun cab can car dew dot ear elf eye fig fin fox fur gem gum guy hen hut ink
    inn jam jaw kid lab leg lid log man mat mud mug nut oar oil pan paw pea pet pie pin pot ray rib rod saw sea shy sky
    spy tap tie tin toe toy tub urn vet wax yak zoo arch atom aunt baby band bank barn bath bean beef bike boot bowl
    bush cage cake calf cane cart cave city clay club coal code cork crab crow cube deer dish dock dove dusk dust edge
    face fact film fire flag foam fork game gift goat hall harp hawk heat herb hero hole hood hook horn jazz kiwi knee
    knot lace lane lawn lime lion lock loop mask maze menu mint moss moth nail neck note oven page palm path peak pear
    pine pipe plum poem pump rail ramp reef root rope rose ruby sail seal silk skin slug soap sofa soup swan tail tank
    tide tile tire toad tool tram tray tube vase vest wasp wave whale actor album alley angel arrow attic bacon badge
    bagel berry blade board brain brick bride broom cabin cable camel canoe cedar cello chalk chess chief choir clock
    clown coast coral couch crane cream creek crowd crown curve diary ditch drain dream dress drill fairy fence ferry
    flame fleet flour frost fruit ghost giant glove goose grain grass guest habit heart hedge hotel hound igloo jewel
    judge label layer lever llama lobby lunch maple medal melon metal model motor nurse olive onion opera organ otter
    owner paint panda pasta peach pearl pedal phone piano pilot pizza plant plate plaza porch prize puppy quilt radio
    ranch razor robin robot rodeo ruler salad scarf scout shark sheet shelf shell shirt skirt skate slope smile smoke
    snack snail snake spade spark spice spoon squad stage stamp steam stone stool storm stove straw sugar swamp sword
    teeth tiger toast torch towel tower track trail train truck trunk tulip vault video villa viola violin wagon waist
    watch wheat wheel woman wrist
    """.split()
)


def two_names(rng: random.Random) -> tuple[str, str]:
    """Draw two different names."""
    first, second = rng.sample(NAMES, 2)
    return first, second

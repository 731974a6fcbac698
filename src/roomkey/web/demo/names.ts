/** Names and colours of people: made up, and the same wherever a name is seen. */

const NAMES = [
  "Ada", "Alan", "Annie", "Barbara", "Claude", "Donald", "Dorothy", "Edsger", "Frances", "Grace", "Hedy", "Ivan",
  "Jean", "Joan", "Karen", "Katherine", "Ken", "Leslie", "Lynn", "Margaret", "Niklaus", "Radia", "Shafi", "Tim",
];

/** Each readable under white text (contrast of 4.5 to 1 at least). */
const COLOURS = ["#2f5bd0", "#b3261e", "#1f6f4a", "#7b3fa0", "#94590a", "#0b6b7c", "#a8326f", "#4b5a12", "#5a4bd1"];

/** A name that none of `taken` has, as long as there is one. */
export function friendlyName(taken: ReadonlySet<string> = new Set()): string {
  const free = NAMES.filter((name) => !taken.has(name));
  const choice = free.length > 0 ? free : NAMES;
  return choice[Math.floor(Math.random() * choice.length)] ?? "Ada";
}

export function colourOf(name: string): string {
  let sum = 0;
  for (const character of name) {
    sum = (sum * 31 + (character.codePointAt(0) ?? 0)) % 65_521;
  }
  return COLOURS[sum % COLOURS.length] ?? "#2f5bd0";
}

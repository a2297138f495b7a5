"""What was found about one target."""
from dataclasses import dataclass


@dataclass(frozen=True)
class Verdict:
    "A target, both sides and whether it is met."
    number: int
    title: str
    limit: str  # as it was set
    found: str  # the figure that decides
    met: bool | None  # None: could not be measured, `found` says why
    lines: list[str]  # all figures: median (least to most)
    sides: list[str]  # what was run
    note: str = ''  # how it was measured
    bound: str = ''  # what takes the time or memory, and so bounds the figure
    run: str = ''  # with which options: pairs, and what was left out

    @property
    def word(self) -> str: return {True: 'MET', False: 'MISSED', None: 'NOT MEASURED'}[self.met]

    def text(self) -> str:
        return '\n'.join([f'{self.number}. {self.title}: {self.word}: {self.found} ({self.limit})', *(f'   {line}' for line in self.lines)])

    def markdown(self) -> str:
        parts = [f'## {self.number}. {self.title}: {self.word.lower()}', f'**{self.found}** ({self.limit})']
        if self.run: parts.append(f'Run with: {self.run}.')
        if self.lines: parts.append('\n'.join(f'- {line}' for line in self.lines))
        if self.note: parts.append(f'{self.note[0].upper()}{self.note[1:]}.')
        if self.bound: parts.append(f'What bounds it: {self.bound}.')
        if self.sides: parts.append('```\n' + '\n'.join(self.sides) + '\n```')
        return '\n\n'.join(parts)

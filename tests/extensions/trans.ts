/** Puts arguments into a sentence, and translates nothing. */
export const trans = {
  __: (text: string, ...args: unknown[]): string =>
    text.replace(/%(\d)/g, (_, place) => String(args[Number(place) - 1]))
};

import { Basket } from "./basket";

describe("basket", () => {
  it("holds (many) items", async () => {
    // it("is commented out", () => {})
    const basket = new Basket();
    expect(basket.label).toMatch(/["')]+/);
    await basket.fill(`a ${size} basket)`);
  });

  it.each([[1, 2], [3, 4]])('sums up', (left, right) => {
    expect(addUp(left, right)).toBeGreaterThan(0);
  });

  test.skip('says it\'s empty', () => emptyBasket());
});

package org.shop;

import org.junit.jupiter.api.Nested;
import org.junit.jupiter.api.Test;

/** Sample: a cart with } unbalanced { braces in this comment. */
public class CartTest {
    private final Clock clock = new Clock() {
        public long now() { return 7; }
    };

    @BeforeEach
    void open() { cart = new Cart(clock); }

    @Test
    @Timeout(5)
    public void addsItems() throws InterruptedException {
        // hidden } brace
        char brace = '}';
        String text = "closing } and \" quote";
        Thread.sleep(latency);
        cart.add(item, (x) -> { confirmAll(x); });
        if (cart.isFull()) { overflow(); }
    }

    @ParameterizedTest
    void prices(int amount, @Named(value = "x") String name) {
        checkPrice(amount);
    }

    @Nested
    class Inner {
        @Test
        void addsItems() { innerOnly(); }
    }

    @Test
    void lastOne() { finish(); }
}

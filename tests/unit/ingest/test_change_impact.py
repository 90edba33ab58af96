"""Facts about how near a change is to a test."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedstep.ingest.change_impact import analyze_change, file_kind, is_build_file, package_of
from fedstep.schema.schema import schema
from fedstep.types import FileChange

CASES = [
    ("org.foo.BarTest#works", "src/main/java/org/foo/Bar.java", "itself"),
    ("org.foo.BarTest#works", "src/test/java/org/foo/BarTest.java", "itself"),
    ("org.foo.BarTest$Inner#works", "src/main/java/org/foo/Bar.java", "itself"),
    ("org.foo.BarIT#works", "core/src/main/kotlin/org/foo/Bar.kt", "itself"),
    ("org.foo.BarTest#works", "src/main/java/org/foo/Baz.java", "near"),
    ("org.foo.BarTest#works", "src/main/java/org/foo/deep/Baz.java", "elsewhere"),
    ("org.foo.BarTest#works", "src/main/java/com/foo/Baz.java", "elsewhere"),
    ("org.foo.BarTest#works", "pom.xml", "build-file"),
    ("tests.test_cart#test_sum", "shop/cart.py", "itself"),
    ("tests.test_cart.TestCart#test_sum", "shop/cart.py", "itself"),
    ("tests.test_cart.TestCart.TestInner#test_sum", "tests/test_cart.py", "itself"),
    ("shop.cart_test.CartTest#test_sum", "shop/cart.py", "itself"),
    ("tests.unit.test_cart#test_sum", "tests/unit/helpers.py", "near"),
    ("tests.unit.test_cart#test_sum", "tests/conftest.py", "build-file"),
    ("tests.unit.test_cart#test_sum", "tests/unit/conftest.py", "near"),
    ("tests.unit.test_cart#test_sum", "docs/index.md", "elsewhere"),
    ("tests.test_iterutils#test_sum", "shop/iterutils.py", "itself"),
    ("tests.test_items#test_sum", "shop/items.py", "itself"),
    ("org.foo.CommitTest#works", "src/main/java/org/foo/Commit.java", "itself"),
    ("org.foo.AuditIT#works", "src/main/java/org/foo/Audit.java", "itself"),
    ("tests/unit/test_cart.py#test_sum", "src/cart.py", "itself"),
    ("src/cart.test.js#adds up", "src/cart.js", "itself"),
    ("src/cart.spec.ts#adds up", "src/cart.ts", "itself"),
    ("src/__tests__/cart.js#adds up", "src/__tests__/order.js", "near"),
    ("src/cart.test.js#adds up", "web/package-lock.json", "build-file"),
    ("src/cart.test.js#adds up", ".github/workflows/ci.yml", "build-file"),
    ("Cart adds up#when empty", "src/cart.js", "elsewhere"),
    ("BarTest#works", "Makefile", "build-file"),
    ("#works", ".gitignore", "elsewhere"),
    # Go: the import path of a package begins with that of its module, which no report tells
    ("github.com/acme/shop/pkg/cart#TestAdds", "pkg/cart/price.go", "near"),
    ("github.com/acme/shop/pkg/cart#TestAdds", "pkg/cart/cart.go", "itself"),
    ("github.com/acme/shop/pkg/cart#TestAdds", "pkg/till/price.go", "elsewhere"),
    ("shop/pkg/cart#TestAdds", "pkg/cart/testdata/a.txt", "elsewhere"),
    ("github.com/acme/shop#TestAdds", "price.go", "near"),
    ("gopkg.in/shop.v3#TestAdds", "price.go", "near"),
    ("github.com/acme/shop/v2#TestAdds", "price.go", "near"),
    ("github.com/acme/shop/pkg/cart#TestAdds", "price.go", "elsewhere"),
    ("github.com/acme/shop#TestAdds", "README.md", "elsewhere"),
    ("src/cart.test.js#adds up", "main.go", "elsewhere"),
    # Rust: the module is in the name of the test
    ("shop#cart::tests::adds", "src/cart.rs", "itself"),
    ("shop#arch::all::twoway::tests::finds", "src/arch/all/twoway.rs", "itself"),
    ("shop#arch::all::twoway::tests::finds", "src/arch/all/other.rs", "near"),
    ("shop#cart::tests::adds", "src/till.rs", "elsewhere"),
    ("shop::checkout#pays", "tests/checkout.rs", "itself"),
    ("Rack::Utils#Rack::Utils escapes", "lib/rack.rb", "elsewhere"),
    # Ruby and Elixir: files have underscores where classes have capitals
    ("ShoppingCartTest#test_adds", "app/models/shopping_cart.rb", "itself"),
    ("Shop::ShoppingCart#test_adds", "lib/shop/shopping_cart.rb", "itself"),
    ("Elixir.Shop.ShoppingCartTest#test adds", "test/shop/shopping_cart_test.exs", "itself"),
]


class TestRelation:
    @pytest.mark.parametrize(("test", "path", "expected"), CASES)
    def test_the_relation_of_a_test_to_a_file(self, test: str, path: str, expected: str) -> None:
        assert analyze_change([FileChange(path)]).relation(test) == expected

    def test_the_nearest_of_several_files_counts(self) -> None:
        files = [FileChange("docs/a.md"), FileChange("pom.xml"), FileChange("org/foo/Other.java")]
        assert analyze_change(files).relation("org.foo.BarTest#works") == "near"
        assert analyze_change(files[:2]).relation("org.foo.BarTest#works") == "build-file"

    def test_package_is_the_directory_that_the_class_names(self) -> None:
        """The package of a test is the directory that its class names."""
        tests = (
            "org.foo.BarTest$Inner#works",
            "tests.unit.test_cart.TestCart#sums",
            "src/cart.test.js#adds up",
            "Cart#adds",
        )
        assert [package_of(test) for test in tests] == ["org/foo", "tests/unit", "src", ""]

    def test_no_change_is_a_relation_of_its_own(self) -> None:
        assert analyze_change([]).relation("org.foo.BarTest#works") == "nothing"


class TestBuildFiles:
    @pytest.mark.parametrize(
        "path",
        ["pom.xml", "a/build.gradle.kts", "pyproject.toml", "go.sum", "Dockerfile.dev", "x/dev-requirements.txt"],
    )
    def test_files_that_say_how_to_build_are_build_files(self, path: str) -> None:
        assert is_build_file(path)

    @pytest.mark.parametrize(
        "path", ["src/pom.xml.md", "mypom.xml", "src/makefile.py", "docs/package.json.md", "a/.github/workflows/x"]
    )
    def test_files_that_only_look_like_it_are_not(self, path: str) -> None:
        assert not is_build_file(path)


class TestFileKinds:
    @pytest.mark.parametrize(
        ("path", "kind"),
        [
            (".github/workflows/ci.yml", "workflow"),
            ("Jenkinsfile", "workflow"),
            ("deploy/Dockerfile.prod", "container"),
            ("docker-compose.yml", "container"),
            ("web/package-lock.json", "dependency"),
            ("Cargo.lock", "dependency"),
            ("requirements-dev.txt", "dependency"),
            ("CMakeLists.txt", "build"),
            ("app/build.gradle.kts", "build"),
            ("docs/index.html", "docs"),
            ("README.md", "docs"),
            ("src/test/java/org/foo/BarTest.java", "test"),
            ("tests/test_app.py", "test"),
            ("src/app.spec.ts", "test"),
            ("src/main/java/org/foo/Bar.java", "source-jvm"),
            ("src/lib.rs", "source-rust"),
            ("app/components/nav.hbs", "source-web"),
            ("cmd/main.go", "source-go"),
            ("config/settings.yml", "data"),
            ("logo.png", "other"),
            ("", "other"),
        ],
    )
    def test_each_path_has_one_kind_of_a_closed_list(self, path: str, kind: str) -> None:
        """The kind of a file is told by well-known names first, then by its folder, then by its ending."""
        assert file_kind(path) == kind


class TestAnyNames:
    @given(st.text(max_size=30), st.lists(st.text(max_size=20).map(FileChange), max_size=4))
    def test_any_names_have_a_relation_that_the_schema_knows(self, test: str, files: list[FileChange]) -> None:
        change = next(part for part in schema().tasks["triage"].parts if part.name == "change")
        assert f"change={analyze_change(files).relation(test)}" in change.names()

"""Normal forms of names, language by language; each line is one that was seen in a crash or is the form of one."""

# ruff: noqa: E501  (a name and its normal form stand side by side)
from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deadreckon.grouping.names.managed import dotnet, java, javascript, php, python, ruby
from deadreckon.grouping.names.messages import parameterize
from deadreckon.grouping.names.native import compiled, go
from deadreckon.grouping.names.paths import file_name


@pytest.mark.parametrize(
    ("name", "normal"),
    [
        ("f(int)::{lambda(double)#1}::operator()(double) const", "f::lambda::operator()"),
        ("f(int) const::'lambda'(double)::operator()(double) const", "f::lambda::operator()"),
        ("f(int)::$_0::operator()(double) const", "f::lambda::operator()"),
        ("`ns::f'::`2'::<lambda_1>::operator()", "ns::f::lambda::operator()"),
        ("ns::f::__l2::<lambda_0123abcdef>::operator()", "ns::f::lambda::operator()"),
        ("std::__1::vector<int, std::allocator<int>>::push_back(int&&)", "std::vector<>::push_back"),
        ("std::vector<int>::push_back(int&&)", "std::vector<>::push_back"),
        ("std::__cxx11::basic_string<char>::append(char const*)", "std::basic_string<>::append"),
        ("std::__throw_length_error(char const*)", "std::__throw_length_error"),
        ("__memmove_avx_unaligned_erms", "memmove"),
        ("__memcpy_chk", "memcpy"),
        ("memcpy", "memcpy"),
        ("__GI_raise", "raise"),
        ("_foo@8", "_foo"),
        ("__45-[Foo bar:]_block_invoke_2", "-[Foo bar:] block"),
        ("__main_block_invoke", "main block"),
        ("closure #2 (Swift.Int) -> () in closure #1 in App.Foo.bar()", "App.Foo.bar closure"),
        ("specialized App.Foo.bar(baz: Swift.Int) -> Swift.String", "App.Foo.bar"),
        ("App.(secret in _0123456789ABCDEF0123456789ABCDEF)(Swift.Int) -> ()", "App.secret"),
        ("static App.Foo.bar() -> ()", "App.Foo.bar"),
        ("core::ptr::drop_in_place<T>::h0123456789abcdef", "core::ptr::drop_in_place<>"),
        ("app::main::{{closure}}", "app::main::lambda"),
        ("app[0123456789abcdef]::main::{closure#0}", "app::main::lambda"),
        ("<app::S as core::ops::Drop>::drop", "<app::S as core::ops::Drop>::drop"),
        ("app::{impl#3}::new", "app::impl::new"),
        ("foo.constprop.0.isra.1", "foo"),
        ("operator new(unsigned long)", "operator new"),
        ("A::operator()(int) const", "A::operator()"),
        ("`anonymous namespace'::g(void)", "anonymous::g"),
        ("void f<int>(int)", "f<>"),
        ("A<int>::f(std::function<void (int)>)::{lambda()#1}::operator()() const", "A<>::f::lambda::operator()"),
        ("f::<lambda()>", "f::lambda"),
        ("f(int)::<lambda(int)>::operator()(int) const", "f::lambda::operator()"),
        ("x::{lambda({lambda(int)#1})#2}::operator()", "x::lambda::operator()"),
    ],
)  # fmt: skip
def test_compiled(name: str, normal: str) -> None:
    assert compiled(name) == normal


@pytest.mark.parametrize(
    ("name", "normal"),
    [
        ("main.(*Server).handle(0xc00, 0x1)", "main.(*Server).handle"),
        ("main.main.func1", "main.main.func"),
        ("main.main.func1.2", "main.main.func"),
        ("main.Map[...](...)", "main.Map[]"),
        ("a/vendor/github.com/x/y.F", "github.com/x/y.F"),
        ("gopkg.in/yaml%2ev3.Unmarshal", "gopkg.in/yaml.v3.Unmarshal"),
        ("main.init.0", "main.init"),
        ("main.(*T).M-fm", "main.(*T).M"),
        ("created by main.main", "created by main.main"),
        ("main.main.func2.1.gowrap1", "main.main.func"),
        ("main.f.func1.deferwrap2", "main.f.func"),
    ],
)  # fmt: skip
def test_go(name: str, normal: str) -> None:
    assert go(name) == normal


@pytest.mark.parametrize(
    ("name", "normal"),
    [
        ("com.a.B$$Lambda$14/0x0000000800066840.run", "com.a.B$$Lambda.run"),
        ("com.a.B$$Lambda/0x00007f.run", "com.a.B$$Lambda.run"),
        ("lambda$main$0", "lambda$main"),
        ("access$000", "access"),
        ("Foo$$EnhancerBySpringCGLIB$$1a2b3c", "Foo$$EnhancerBySpringCGLIB"),
        ("Foo$$SpringCGLIB$$0.bar", "Foo$$SpringCGLIB.bar"),
        ("com.sun.proxy.$Proxy12.f", "$Proxy.f"),
        ("jdk.proxy2.$Proxy34.f", "$Proxy.f"),
        ("jdk.internal.reflect.GeneratedMethodAccessor12.invoke", "jdk.internal.reflect.GeneratedMethodAccessor.invoke"),
        ("Foo$1$2.run", "Foo$.run"),
        ("Foo$bar$1.invokeSuspend", "Foo$bar$.invokeSuspend"),
        ("-$$Lambda$MainActivity$9ZmDhYcPnVwKxTqLrSuJbEoAgFi", "-$$Lambda$MainActivity"),
        ("Foo$$ExternalSyntheticLambda0", "Foo$$ExternalSyntheticLambda"),
        ("clojure.core$fn__1234", "clojure.core$fn"),
        ("foo-abC1234", "foo"),
        ("my-func", "my-func"),
        ("foo$app_debug", "foo"),
        ("x_$$_jvst1a2_0", "x_$$_jvst1a2"),
        ("LambdaForm$MH/0x0000.invoke", "LambdaForm$MH.invoke"),
        ("Foo$Companion.get", "Foo$Companion.get"),
    ],
)  # fmt: skip
def test_java(name: str, normal: str) -> None:
    assert java(name) == normal


@pytest.mark.parametrize(
    ("name", "normal"),
    [
        ("App.Foo+<DoWork>d__12.MoveNext", "App.Foo+DoWork"),
        ("<DoWork>d__12.MoveNext()", "DoWork"),
        ("App.<>c__DisplayClass3_0.<Main>b__1", "App.Main.lambda"),
        ("App.<>c.<Main>b__0_0(Int32 x)", "App.Main.lambda"),
        ("App.<Main>g__Local|0_1", "App.Main.Local"),
        ("System.Collections.Generic.List`1[[System.Int32, mscorlib]].Add(T item)", "System.Collections.Generic.List.Add"),
        ("lambda_method12", "lambda_method"),
        ("Foo_Bar_m0123456789ABCDEF0123456789ABCDEF01234567", "Foo_Bar"),
        (".ctor", ".ctor"),
    ],
)  # fmt: skip
def test_dotnet(name: str, normal: str) -> None:
    assert dotnet(name) == normal


@pytest.mark.parametrize(
    ("name", "normal"),
    [
        ("Object.<anonymous>", "anonymous"),
        ("new Foo", "Foo"),
        ("async Foo.bar [as baz]", "bar"),
        ("Module../src/a.ts", "src/a.ts"),
        ("foo/<", "foo"),
        ("foo/bar/<", "bar"),
        ("Foo.prototype.bar", "bar"),
        ("_callee2$", "_callee"),
        ("t.<computed>", "anonymous"),
        ("1234", "anonymous"),
        ("?anon_0_foo", "foo"),
        ("eval", "eval"),
    ],
)  # fmt: skip
def test_javascript(name: str, normal: str) -> None:
    assert javascript(name) == normal


@pytest.mark.parametrize(
    ("name", "platform", "normal"),
    [
        ("main.3f2a9b1c.js", "javascript", "main.js"),
        ("https://x.y/static/js/2.a1b2c3d4.chunk.js?v=1", "javascript", "chunk.chunk.js"),
        ("/x/node_modules/.pnpm/react@18.2.0/node_modules/react/cjs/react.production.min.js", "javascript", "react/cjs/react.production.min.js"),
        ("assets/index-BfX93kd1.js", "javascript", "index.js"),
        ("jquery-3.6.0.min.js", "javascript", "jquery.min.js"),
        ("webpack:///./src/a.ts?ab12", "javascript", "a.ts"),
        ("/usr/lib/python3.9/site-packages/django/core.py", "python", "django/core.py"),
        ("/usr/lib/python3.9/json/decoder.py", "python", "json/decoder.py"),
        ("C:\\Jenkins\\ws\\Foo.cpp", None, "foo.cpp"),
        ("/build/glibc-SzIz7B/glibc-2.31/csu/../csu/libc-start.c", None, "libc-start.c"),
        ("/srv/app/views.py", "python", "views.py"),
        ("<string>", "python", "<string>"),
        ("runtime-chunk.js", "javascript", "runtime-chunk.js"),
        ("app-component.js", "javascript", "app-component.js"),
        ("chunk-vendors.8a1b2c3d.js", "javascript", "chunk-vendors.js"),
        ("12.js", "javascript", "12.js"),
    ],
)  # fmt: skip
def test_file_name(name: str, platform: str | None, normal: str) -> None:
    assert file_name(name, platform) == normal


@pytest.mark.parametrize(
    ("name", "normal"),
    [
        ("connect to 10.0.0.1:8080 failed after 30ms at 2024-01-02T03:04:05Z", "connect to <ip> failed after <duration> at <date>"),
        ("user a@b.com id 123e4567-e89b-12d3-a456-426614174000 file /var/log/x/y.log line 12", "user <email> id <uuid> file <path> line <number>"),
        ("C:\\Users\\x\\y.txt not found: 0xdeadbeef deadbeef1 3.14 50% -7", "<path> not found: <address> <hash> <number> <number> <number>"),
        ("GET https://x.y/z?a=1 500", "GET <url> <number>"),
        ("Object@1a2b3c4 sess_4f5e6d7c8b9a0f1e2d Tue, 05 Nov 2024 10:11:12 GMT", "Object@<address> <id> <date>"),
        ("std::foo a::b thread12 worker-3 utf8 x86_64 a/b and/or", "std::foo a::b thread12 worker-<number> utf8 x86_64 a/b and/or"),
        ("free(): invalid size 12 bytes; key 'abcdef'", "free(): invalid size <size>; key 'abcdef'"),
        ("fe80::1 12:34:56 AM", "<ip> <date>"),
    ],
)  # fmt: skip
def test_parameterize(name: str, normal: str) -> None:
    assert parameterize(name) == normal


@pytest.mark.parametrize(
    ("name", "normal"),
    [
        ("f.<locals>.<lambda>", "f.<lambda>"),
        ("App.run.<locals>.inner", "App.run.inner"),
        ("__pyx_pw_3lib_5fast_1total", "total"),
        ("<listcomp>", "<listcomp>"),
    ],
)  # fmt: skip
def test_python(name: str, normal: str) -> None:
    assert python(name) == normal


@pytest.mark.parametrize(
    ("name", "normal"),
    [
        ("block (2 levels) in render", "render"),
        ("rescue in call", "call"),
        ("_app_views_show_html_erb__1234567_8901234", "_app_views_show_html_erb"),
        ("each", "each"),
    ],
)  # fmt: skip
def test_ruby(name: str, normal: str) -> None:
    assert ruby(name) == normal


@pytest.mark.parametrize(
    ("name", "normal"),
    [
        ("class@anonymous\x00/srv/a.php:12$0::run", "class@anonymous::run"),
        ("{closure:/srv/a.php:3}", "{closure}"),
        ("App\\Kernel::handle", "App\\Kernel::handle"),
    ],
)  # fmt: skip
def test_php(name: str, normal: str) -> None:
    assert php(name) == normal


@given(st.text(max_size=300) | st.text(alphabet="<>(){}[]$.:_/-'`#0123456789abcdfht ", max_size=300))
def test_any_text_has_a_normal_form(name: str) -> None:
    for normal in (compiled, go, java, dotnet, javascript, python, ruby, php, parameterize):
        assert isinstance(normal(name), str)
    for platform in ("javascript", "python", None):
        assert isinstance(file_name(name, platform), str)


PARTS = (
    "{lambda(", ".1", "<", "(", "`", "$", "$1", "closure #1 in ", "specialized ", "::h0", "a_", "1.", "/a", "a@", "0x",
    "aB1", "[", ".<locals>", " in ", "f::", "a-", "-1",
)  # fmt: skip


@pytest.mark.parametrize("part", PARTS)
def test_the_longest_names_end(part: str) -> None:
    """Names come from crashed programs; the most that is looked at is 4096 characters."""
    text = (part * 4096)[:4095] + "!"
    for normal in (compiled, go, java, dotnet, javascript, python, ruby, php, parameterize):
        assert len(normal(text)) <= 8 * 4096
    assert len(file_name(text, "javascript")) <= 4096

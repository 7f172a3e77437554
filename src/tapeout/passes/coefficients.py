"""Coefficients of the polynomials in `expansions`, highest power first.

Minimax fits (Lawson iteration in 40 digits), coefficients rounded to the type one after the other, lowest power first.
"""

from tapeout.numerics.dtypes import DType


def _read(text: str) -> tuple[float, ...]:
    return tuple(float.fromhex(word) for word in text.split())


EXP = {  # (e**r - 1 - r) / r**2, |r| <= ln(2) / 2
    DType.F32: _read(
        """
        0x1.6d50b8p-10 0x1.120ad8p-7 0x1.5554e6p-5 0x1.5554dep-3 0x1.000000p-1
        """
    ),
    DType.F64: _read(
        """
        0x1.1f7a16cf69d7ap-29 0x1.af4eebadd4b66p-26 0x1.27e4d7793c2d8p-22 0x1.71de019db3455p-19
        0x1.a01a01a84c324p-16 0x1.a01a01ac22550p-13 0x1.6c16c16c15fa7p-10 0x1.111111111004bp-7
        0x1.5555555555556p-5 0x1.5555555555557p-3 0x1.0000000000000p-1
        """
    ),
}
ATANH = {  # (2 atanh(s) / s - 2) / z, z = s**2 <= 0.0295: what logarithms are made of
    DType.F32: _read(
        """
        0x1.99fa90p-3 0x1.25ea64p-2 0x1.99955ep-2 0x1.555556p-1
        """
    ),
    DType.F64: _read(
        """
        0x1.2f8a5768f4939p-3 0x1.0c1ac404d0fbbp-3 0x1.3b41964cb88bcp-3 0x1.745c3ba4d930ep-3
        0x1.c71c73ea471c1p-3 0x1.249249234d131p-2 0x1.999999999a2a4p-2 0x1.5555555555555p-1
        """
    ),
}
SINE = {  # (sin(a) / a - 1) / z, z = a**2, |a| <= pi / 4
    DType.F64: _read(
        """
        -0x1.9dc024334f7a1p-41 0x1.610517675d093p-33 -0x1.ae6424f27bd5fp-26 0x1.71de3a2e278b4p-19
        -0x1.a01a019ffa95cp-13 0x1.111111111105bp-7 -0x1.5555555555555p-3
        """
    ),
}
COSINE = {  # (cos(a) - 1 + z / 2) / z**2, z = a**2, |a| <= pi / 4
    DType.F64: _read(
        """
        -0x1.8fb175e8010e4p-37 0x1.1ee9f1c4d6a8ep-29 -0x1.27e4f8133e2bfp-22 0x1.a01a019cbfea6p-16
        -0x1.6c16c16c15222p-10 0x1.555555555554cp-5
        """
    ),
}
TANH = {  # (tanh(x) / x - 1) / z, z = x**2 <= 0.3026
    DType.F32: _read(
        """
        -0x1.9c9caep-8 0x1.59836cp-6 -0x1.b9320ap-5 0x1.110d6ap-3 -0x1.55554cp-2
        """
    ),
}
ASIN = {  # (asin(x) / x - 1) / z, z = x**2 <= 0.25
    DType.F32: _read(
        """
        0x1.59e718p-5 0x1.8b9a44p-6 0x1.748c44p-5 0x1.33015ep-4 0x1.5555cap-3
        """
    ),
    DType.F64: _read(
        """
        0x1.0bed644418e9bp-5 -0x1.5a15ab3643681p-6 0x1.6519da8c7e32bp-6 0x1.e106656b0c454p-9
        0x1.6190cae1a7a60p-7 0x1.757663bd14629p-7 0x1.ca216ae776442p-7 0x1.1c49dc550024fp-6
        0x1.6e8bdffe53ff9p-6 0x1.f1c71a8ad959ep-6 0x1.6db6db722cdc4p-5 0x1.333333332df0cp-4
        0x1.5555555555578p-3
        """
    ),
}
ATAN = {  # (atan(x) / x - 1) / z, z = x**2 <= 1
    DType.F32: _read(
        """
        0x1.86321ap-9 -0x1.0fd10ap-6 0x1.64e8bcp-5 -0x1.368c8ep-4 0x1.b56e6cp-4 -0x1.231c12p-3 0x1.997af0p-3
        -0x1.5554e6p-2
        """
    ),
    DType.F64: _read(
        """
        0x1.c4671b05a49a8p-17 -0x1.447df564b1746p-13 0x1.ba1043966db7ep-11 -0x1.7e8660ee7cb75p-9
        0x1.dbe4c5d949860p-8 -0x1.ca80c34f9ef91p-7 0x1.69cc1728e1291p-6 -0x1.eb3ed674dd90dp-6
        0x1.2c94c17bd197bp-5 -0x1.59d6415b6a784p-5 0x1.82ee05268c419p-5 -0x1.ae64199eb6dd0p-5
        0x1.e1bcebc368baap-5 -0x1.110e6c8b14959p-4 0x1.3b1369f68c709p-4 -0x1.745d11f869e07p-4
        0x1.c71c718402f9cp-4 -0x1.2492492391c0ep-3 0x1.9999999995adbp-3 -0x1.555555555552ap-2
        """
    ),
}
ERF = {  # erf(x) / x - 1 in z = x**2 <= 0.86 (f64: 0.25)
    DType.F32: _read(
        """
        0x1.5cf736p-14 -0x1.aa377cp-11 0x1.54c3f6p-8 -0x1.b80d9ep-6 0x1.ce2df2p-4 -0x1.812742p-2
        0x1.06eba8p-3
        """
    ),
    DType.F64: _read(
        """
        0x1.152cca0a7db98p-17 -0x1.602fa6a57d654p-17 0x1.df3ecf4fed0dbp-18 -0x1.158021303db18p-16
        0x1.fad6052df919ep-14 -0x1.c031e272f8096p-11 0x1.565bd5df42ea8p-8 -0x1.b82ce327adfe0p-6
        0x1.ce2f21a05c3e6p-4 -0x1.812746b037aa4p-2 0x1.06eba8214db69p-3
        """
    ),
}
LOG_ERFC = {  # -log(erfc(t)), 0.92 <= t <= 4, weighted by erfc(t)
    DType.F32: _read(
        """
        0x1.d88608p-22 0x1.02a896p-16 -0x1.a6b118p-12 0x1.0b027ap-8 -0x1.988f0ep-6 0x1.baa086p-4
        0x1.445ab0p-1 0x1.2123b0p+0 -0x1.56ce7ap-13
        """
    ),
}
ERFCX = {  # e**(x**2) erfc(x) (1 + 2 x) - 1 in q = (x - 4) / (x + 4), x >= 0
    DType.F32: _read(
        """
        -0x1.6e9048p-17 0x1.f4538ap-14 -0x1.cab72ap-13 -0x1.7c70c4p-11 0x1.4b24b4p-8 -0x1.0999f2p-6
        0x1.305bdep-5 -0x1.0faf4ep-4 0x1.7ff376p-4 -0x1.9dda7ap-4 0x1.16ec18p-4 0x1.f7f4bap-7 -0x1.1df1a8p-3
        0x1.dd2c8cp-3
        """
    ),
    DType.F64: _read(
        """
        0x1.df3e2156ec247p-33 -0x1.c7bd776e71881p-33 -0x1.d8a382eb71113p-30 0x1.3132da12392a3p-29
        0x1.00737dc33ff98p-27 -0x1.10c0aa3a23401p-26 -0x1.e057c6e814d73p-26 0x1.e0b8c9abc989dp-24
        0x1.701d159333c40p-24 -0x1.bbdc45ba16f89p-21 0x1.32d773e2be0f4p-22 0x1.7f38879c5e4c5p-18
        -0x1.786a7ebdd20a8p-17 -0x1.995b10a984c27p-16 0x1.3bdfaea765fcdp-13 -0x1.a1df135124b27p-13
        -0x1.8d4a91962a953p-11 0x1.49c672681d94cp-8 -0x1.0962388f3c97bp-6 0x1.3079edf6fe1bcp-5
        -0x1.0fb06dfe0d11dp-4 0x1.7fee004e0de5bp-4 -0x1.9ddb23c3ec001p-4 0x1.16ecefcfa55eep-4
        0x1.f7f5df66fdf1ep-7 -0x1.1df1ad154a291p-3 0x1.dd2c8b74febf6p-3
        """
    ),
}
LGAMMA_NEAR_1 = {  # lgamma(1 + z) / z, |z| <= 0.5
    DType.F32: _read(
        """
        -0x1.265332p-6 -0x1.c895f4p-3 0x1.9866a6p-3 -0x1.16f5a0p-6 0x1.d62334p-5 -0x1.064866p-3
        0x1.0f8a2cp-3 -0x1.232dccp-3 0x1.5a1c32p-3 -0x1.a8ed76p-3 0x1.151810p-2 -0x1.9a4cd2p-2 0x1.a51a60p-1
        -0x1.2788d0p-1
        """
    ),
}
LGAMMA_NEAR_2 = {  # lgamma(2 + z) / z, -0.5 <= z <= 1
    DType.F32: _read(
        """
        -0x1.8c1bdep-15 0x1.4bbb34p-13 -0x1.141f94p-12 0x1.f8e28cp-12 -0x1.3160a2p-10 0x1.7b6394p-9
        -0x1.e46da4p-8 0x1.5131cep-6 -0x1.13df82p-4 0x1.4a34ccp-2 0x1.b0ee60p-2
        """
    ),
}
LGAMMA_NEAR_5 = {  # lgamma(5 + z), -2 <= z <= 3
    DType.F32: _read(
        """
        -0x1.530192p-30 0x1.f3b4cep-27 -0x1.714cd2p-24 0x1.d9109ap-22 -0x1.5c65b6p-19 0x1.1c24d6p-16
        -0x1.ebaecap-14 0x1.d43458p-11 -0x1.0a755cp-7 0x1.c544cep-4 0x1.8190eep+0 0x1.96ca78p+1
        """
    ),
}
ERFINV_CENTRAL = {  # erfinv(x) / x in u = w - 2.5, w = -log(1 - x**2) <= 5
    DType.F32: _read(
        """
        0x1.e8679cp-26 0x1.7110b2p-22 -0x1.d97220p-19 -0x1.270978p-18 0x1.ca6dc8p-13 -0x1.48a704p-10
        -0x1.11ca1cp-8 0x1.f91ec6p-3 0x1.805c5ep+0
        """
    ),
}
ERFINV_TAIL = {  # erfinv(x) / x in u = sqrt(w) - 3, w >= 5
    DType.F32: _read(
        """
        -0x1.2fea20p-15 0x1.6219d2p-13 -0x1.14e996p-12 -0x1.1d0906p-13 0x1.801838p-10 -0x1.d239a2p-9
        0x1.74f74ap-8 -0x1.f506eap-8 0x1.357d02p-7 0x1.006dccp+0 0x1.6a9efcp+1
        """
    ),
}

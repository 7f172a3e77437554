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
    DType.F64: _read(
        """
        0x1.d81466a876a13p+0 0x1.cc79bddea767bp-2 -0x1.e170d51a29cabp+1 -0x1.25e926342632cp-1
        0x1.9c7b0b6c04635p+1 0x1.e5f895f1af49bp-2 -0x1.b9198bbf41fbap+0 -0x1.31a9cf1871bedp-3
        0x1.0f333c59d4017p-1 0x1.9f66411fb9a2cp-4 -0x1.77948a27adb3dp-3 0x1.3baabe347c85fp-5
        -0x1.e62d2b4b3d989p-6 0x1.d4d55393860c0p-5 -0x1.f8ccd4cbda951p-5 0x1.fe92a5e56982fp-5
        -0x1.101297ca1d09dp-4 0x1.24a4853a3a41bp-4 -0x1.3b2d77092cc0bp-4 0x1.556a21748c895p-4
        -0x1.748b867973b21p-4 0x1.9a01e9cf97763p-4 -0x1.c80675382f80fp-4 0x1.010b369db3b89p-3
        -0x1.2703a1d2a25e3p-3 0x1.5b40cb10470d0p-3 -0x1.a8b9c17abd3f1p-3 0x1.151322ac7d541p-2
        -0x1.9a4d55beab232p-2 0x1.a51a6625307d4p-1 -0x1.2788cfc6fb619p-1
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
    DType.F64: _read(
        """
        -0x1.423726fbc82c2p-27 0x1.d3d0ed5ad735fp-25 -0x1.ff55a469fc01cp-24 0x1.8e299d0833dd2p-24
        0x1.3c27cfbf87eecp-24 -0x1.f140d5ef66f99p-23 0x1.2f1983bf07746p-22 -0x1.ba773feace118p-22
        0x1.e73c9294e91a6p-21 -0x1.115bebb8e9b4fp-19 0x1.267e63c9c2e6ap-18 -0x1.3cdb3a08643a5p-17
        0x1.580542c2c3b00p-16 -0x1.78dc8ccbbb5bap-15 0x1.a127dbf888e3bp-14 -0x1.d3fd59d97c388p-13
        0x1.0b36af5458009p-11 -0x1.38ac5c118c2f8p-10 0x1.7add6eadcbfe6p-9 -0x1.e404fc21c37d7p-8
        0x1.51322ac7d8688p-6 -0x1.13e001a557564p-4 0x1.4a34cc4a60fa6p-2 0x1.b0ee6072093cep-2
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
    DType.F64: _read(
        """
        0x1.99a7bf1739328p-64 -0x1.704f42fb6db52p-60 0x1.653a2e36b424bp-58 0x1.c9da07b6bb7d7p-57
        -0x1.27e96c1a4390dp-53 0x1.01b18763550d7p-53 0x1.68cd503178d6cp-50 -0x1.a0c2fd3044d24p-49
        -0x1.777d0285b277ap-48 0x1.5e92cceeb471fp-46 0x1.d8c150de4d958p-46 -0x1.999b115145c39p-43
        0x1.fbbd5991ca9e5p-42 -0x1.20b1e2fda41e8p-39 0x1.bac2b8f13a27ep-37 -0x1.35c89ae60116cp-34
        0x1.aa45663f566efp-32 -0x1.2a99343f5bb16p-29 0x1.a993e63143306p-27 -0x1.352d0a2739f8ap-24
        0x1.cc95ab4ca21dep-22 -0x1.629e9d407b66cp-19 0x1.1db6c0b892ee1p-16 -0x1.eb8b4e5e1a2fcp-14
        0x1.d41919c5ef42ap-11 -0x1.0a74fd5d4a7fbp-7 0x1.c544f845f5900p-4 0x1.8190ed71d7a46p+0
        0x1.96ca77c922cf9p+1
        """
    ),
}
ERFINV_CENTRAL = {  # erfinv(x) / x in w - 2.5 (f64: w - 3.125), w = -log(1 - x**2) up to 5 (6.25)
    DType.F32: _read(
        """
        0x1.e8679cp-26 0x1.7110b2p-22 -0x1.d97220p-19 -0x1.270978p-18 0x1.ca6dc8p-13 -0x1.48a704p-10
        -0x1.11ca1cp-8 0x1.f91ec6p-3 0x1.805c5ep+0
        """
    ),
    DType.F64: _read(
        """
        0x1.fb3d0023430eep-69 -0x1.267bd439b922fp-70 -0x1.a4cbf385f9212p-62 0x1.513760b52501cp-60
        0x1.2230451ffccfap-56 -0x1.2bbf8764309f7p-53 -0x1.8783d73172fc8p-55 0x1.db27ef4dbee62p-48
        -0x1.683afd24f0e0ap-45 -0x1.6d891f010f4b4p-44 0x1.7231571cbe70fp-39 -0x1.c896491cf1cf3p-37
        -0x1.dc3e07507ab54p-35 0x1.20f4eccf83865p-30 -0x1.1a9eb5e74fc46p-28 -0x1.f36ce57d79171p-26
        0x1.c6b4f8a89781bp-22 -0x1.6e8a53ecf4074p-20 -0x1.d1d1f7cad9161p-17 0x1.879c2a20d4e09p-13
        -0x1.8457694834604p-11 -0x1.8b6c33114edf0p-8 0x1.ebd80d9b13df8p-3 0x1.a755e7c99ae86p+0
        """
    ),
}
ERFINV_MIDDLE = {  # erfinv(x) / x in sqrt(w) - 3.25, from there to w = 16
    DType.F64: _read(
        """
        0x1.73efa1dd65046p-30 0x1.86efb4a28b7e4p-24 -0x1.251581f5fdabdp-22 0x1.2e1cb795f4c44p-26
        0x1.92beefeca9e31p-20 -0x1.0d5239f49c3efp-18 0x1.8891171ca3117p-19 0x1.a296e6e3b514bp-17
        -0x1.8cf02ac39db5dp-15 0x1.1e686ceccb7acp-14 0x1.932d43f04355ep-16 -0x1.7448aa15a6a4ep-12
        0x1.f3cc5542f6528p-11 -0x1.ba9241297a851p-10 0x1.468eeca6e8289p-9 -0x1.ebadabb8cccf0p-9
        0x1.5ffcfe5b70617p-8 0x1.0158a6d641d41p+0 0x1.8abcc380d5a48p+1
        """
    ),
}
ERFINV_TAIL = {  # erfinv(x) / x in sqrt(w) - 3 (f64: sqrt(w) - 5), beyond
    DType.F32: _read(
        """
        -0x1.2fea20p-15 0x1.6219d2p-13 -0x1.14e996p-12 -0x1.1d0906p-13 0x1.801838p-10 -0x1.d239a2p-9
        0x1.74f74ap-8 -0x1.f506eap-8 0x1.357d02p-7 0x1.006dccp+0 0x1.6a9efcp+1
        """
    ),
    DType.F64: _read(
        """
        -0x1.85c2d70ac1639p-36 0x1.654acdebb013fp-35 0x1.5a9a9ecfd3fb9p-34 -0x1.d6620f8ea78f5p-32
        0x1.643049aabeae9p-30 -0x1.df7bebfd609f6p-29 0x1.0d900dcbf5b5ep-27 -0x1.05cc83349ddc9p-26
        0x1.f240821736eb3p-26 -0x1.22306864d3bb8p-24 0x1.ebe6de4b7382dp-23 -0x1.0a9047f0c9c29p-20
        0x1.2fbcf67d8744ap-18 -0x1.4a34902ee1924p-16 0x1.3ebf4f088a885p-14 -0x1.c2f36aa15f381p-13
        -0x1.22ea5df21d839p-13 0x1.02a30d1fba10bp+0 0x1.3664ddd1ad7fbp+2
        """
    ),
}

WORDS_OF_TWO_OVER_PI = """
    a2f9836e4e441529 fc2757d1f534ddc0 db6295993c439041 fe5163abdebbc561 b7246e3a424dd2e0 06492eea09d1921c
    fe1deb1cb129a73e e88235f52ebb4484 e99c7026b45f7e41 3991d639835339f4 9c845f8bbdf9283b 1ff897ffde05980f
    ef2f118b5a0a6d1f 6d367ecf27cb09b7 4f463f669e5fea2d 7527bac7ebe5f17b 3d0739f78a5292ea 6bfb5fb11f8d5d08
    56033046fc7b6bab
"""
TWO_OVER_PI = tuple(int(word, 16) for word in WORDS_OF_TWO_OVER_PI.split())
"""The first 1216 bits behind the binary point."""
